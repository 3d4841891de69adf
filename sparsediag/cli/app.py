"""`sparsediag <diagnostic> ckpt.pt`: a command for every diagnostic, derived from its function."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from docstring_parser import parse

from sparsediag.cli.options import (
    CHECKPOINT,
    DEBUG,
    JSON,
    LOOK,
    OTHERS,
    SHARE,
    SHARED,
    sizes,
    typed,
)
from sparsediag.core.process import configure_process
from sparsediag.core.version import __version__
from sparsediag.diagnostics import DIAGNOSTICS, diagnostic

if TYPE_CHECKING:
    from sparsediag.core.problem import Problem
    from sparsediag.diagnostics.result import Result

app = App(
    name="sparsediag",
    help="See what happens inside sparse neural networks.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
app.command(
    "sparsediag.cli.report:command",
    name="report",
    help="all diagnostics of one or several nets, on one page",
)
app.command("sparsediag.cli.app:info", name="info", help="what a checkpoint holds, layer by layer")
app.command("sparsediag.cli.app:join", name="join", help="the shards of a landscape in one")
for _name, _summary in DIAGNOSTICS.items():
    app.command(f"sparsediag.cli.app:{_name}", name=_name, help=_summary)


def __getattr__(name: str) -> Callable[..., Any]:
    """The command of a diagnostic, built when it is asked for, so that help needs no torch."""
    if name not in DIAGNOSTICS:
        raise AttributeError(f"module 'sparsediag.cli.app' has no attribute '{name}'")
    return _command(name, diagnostic(name))


def _command(name: str, function: Callable[..., Result]) -> Callable[..., None]:
    signature, hints = inspect.signature(function).parameters, typing.get_type_hints(function)
    text = parse(function.__doc__ or "")
    explained = {p.arg_name: p.description for p in text.params}
    own: dict[str, tuple[Any, Any]] = {
        key: (Annotated[typed(hints[key]), Parameter(help=explained.get(key))], option.default)
        for key, option in signature.items()
        if typed(hints[key])
    }

    def command(checkpoint: Path, *others: Path, **given: Any) -> None:
        from sparsediag.checkpoint import resolve
        from sparsediag.checkpoint.checkpoint import Checkpoint
        from sparsediag.cli.dispatch import expected_loss, job, resume_path, tables
        from sparsediag.cli.output import checked, formats, write
        from sparsediag.data import datasets
        from sparsediag.plotting import terminal

        shared = {key: given.pop(key, default) for key, (_, default) in SHARED.items()}
        sizes(shared["images"], shared["batch"])
        look = {key: shared[key] for key in LOOK}
        if shared["model_options"] is not None:
            look["model_options"] = resolve.options(shared["model_options"])
        notes: dict[str, None] = {}  # each line once

        def load(kept: Checkpoint, name: str = "") -> Problem:
            before = f"{name}: " if name else ""
            return kept.problem(**look, note=lambda line: notes.setdefault(before + line))

        files, side = [checkpoint, *others], given.pop("shared", False)
        kinds = formats(shared["formats"], tables=tables(name, files, side, **given))
        if shared["out"]:
            checked(shared["out"])
        todo = job(name, files, load, given, shared=side)
        out = checked(shared["out"] or todo.out)
        unfinished = out.with_name(f".{out.stem}.unfinished")
        if todo.long:
            given["resume"] = unfinished
        if "expected" in hints and todo.checkpoint:
            given.setdefault("expected", expected_loss(todo.checkpoint, **look))
        if "std" in hints and todo.checkpoint:
            data = shared["data"] or todo.checkpoint.data
            given["std"] = None if resolve.is_custom_data(data) else datasets.load(data).std
        with terminal.progress_bar(name) as progress:
            if "progress" in hints:
                given["progress"] = progress
            result = todo.work(todo.subject, **given)
        written = [str(file) for file in write(result, out, kinds=kinds)]
        for kept in (unfinished, *(resume_path(unfinished, i) for i in range(len(files)))):
            kept.unlink(missing_ok=True)
        if shared["json"]:
            found = {"notes": list(notes)} if notes else {}
            print(dumps({**result.json(), **found, "files": written}))
        else:
            terminal.print_table(name, result.table())
            print(*result.remarks(), *notes, "wrote " + " ".join(written), sep="\n")

    others = []
    if name == "landscape":
        own["shared"] = (SHARE, False)
        others = [inspect.Parameter("others", inspect.Parameter.VAR_POSITIONAL, annotation=OTHERS)]
    parameters = [
        inspect.Parameter("checkpoint", inspect.Parameter.POSITIONAL_ONLY, annotation=CHECKPOINT),
        *others,
        *(
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
            for key, (hint, default) in {**own, **SHARED}.items()
        ),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__name__ = name
    return command


def info(
    checkpoint: CHECKPOINT,
    /,
    *others: Annotated[Path, Parameter(help="More of them, to compare their masks.")],
    out: Annotated[Path | None, Parameter(help="Keep the count, .npz, and draw it, .png.")] = None,
    json: JSON = False,
    debug: DEBUG = False,
) -> None:
    """Show what a checkpoint holds: the network, its mask by layer, how masks agree."""
    from sparsediag.checkpoint.checkpoint import Checkpoint
    from sparsediag.checkpoint.labels import short_labels
    from sparsediag.cli import output
    from sparsediag.diagnostics.census import census
    from sparsediag.plotting import terminal

    if out:
        output.checked(out)
    files = [checkpoint, *others]
    nets = dict(zip(short_labels(files), map(Checkpoint.load, files), strict=True))
    masked = any(net.mask for net in nets.values())
    if (others or out) and not masked and not all(net.model for net in nets.values()):
        raise ValueError(f"there is no mask to count in {', '.join(map(str, files))}")
    counted = census(nets) if others or out or masked else None
    written = output.write(counted, out, kinds=["png"]) if counted and out else []
    about = {name: net.about() for name, net in nets.items()}
    if json:
        whole = about if others else next(iter(about.values()))
        print(dumps({**whole, "census": counted and counted.json()}))
        return
    if not others:
        (net,), (told,) = nets.values(), about.values()
        tensors = told.pop("tensors")
        del told["layers"]
        terminal.print_facts(str(checkpoint), told if net.model else net.made_by)
        if not net.model:
            rows = [
                {"tensor": n, "shape": " x ".join(map(str, s)), "type": t} for n, s, t in tensors
            ]
            terminal.print_table("\ntensors", rows)
    if counted:
        terminal.print_table("\nmask", counted.layers())
        terminal.print_table("\nin all", counted.table())
        for remark in counted.remarks():
            print(remark)
    if written:
        print("wrote " + " ".join(map(str, written)))


def join(
    parts: Annotated[list[Path], Parameter(help="Results of `landscape --shard 1/n` to n/n.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Result file, .npz.")],
    formats: Annotated[str, Parameter(help="Also write: png, pdf, svg, csv, vtk.")] = "png",
    debug: DEBUG = False,
) -> None:
    """Put the shards of a landscape together."""
    from sparsediag.cli import output
    from sparsediag.diagnostics.landscape import Landscape
    from sparsediag.plotting import terminal

    output.checked(out)
    whole = Landscape.join([Landscape.load(part) for part in parts])
    tables = ("csv", "vtk") if whole.loss.ndim == 2 and not whole.lines else ("csv",)
    kinds = output.formats(formats, tables=tables)
    files = [str(file) for file in output.write(whole, out, kinds=kinds)]
    terminal.print_table("landscape", whole.table())
    print(*whole.remarks(), "wrote " + " ".join(files), sep="\n")


def main(argv: list[str] | None = None) -> int:
    """Run one command. What the user can mend is one line on stderr and exit code 2."""
    configure_process()
    words = sys.argv[1:] if argv is None else argv
    try:
        app(words, exit_on_error=False, print_error=False)
    except (CycloptsError, ValueError, OSError) as error:
        if "--debug" in words:
            raise
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        gpu = type(error).__name__ == "OutOfMemoryError"
        short = gpu or isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
        if not short or "--debug" in words:
            raise
        where = "the GPU has" if gpu else "there is"
        what = "reduce --batch, --memory or --points"
        print(f"{where} too little memory; {what}", file=sys.stderr)
        return 2
    return 0
