"""`sparsediag <diagnostic> ckpt.pt`: a command for every diagnostic, derived from its function."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from docstring_parser import parse

import sparsediag
from sparsediag.diagnostics import DIAGNOSTICS
from sparsediag.process import settle

if TYPE_CHECKING:
    from sparsediag.problem import Problem
    from sparsediag.result import Result

app = App(
    name="sparsediag",
    help="See what happens inside sparse neural networks.",
    version=sparsediag.__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
app.command("sparsediag.cli:info", name="info", help="what a checkpoint holds, layer by layer")
for _name, _summary in DIAGNOSTICS.items():
    app.command(f"sparsediag.cli:{_name}", name=_name, help=_summary)

CHECKPOINT = Annotated[Path, Parameter(help="A file that a training wrote.")]
JSON = Annotated[bool, Parameter(negative="", help="Print one JSON object instead of a table.")]
DEBUG = Annotated[bool, Parameter(negative="", help="Show the traceback of an error.")]
SHARED: dict[str, tuple[Any, Any]] = {
    "out": (
        Annotated[
            Path | None, Parameter(help="Result file, .npz (default: beside the checkpoint).")
        ],
        None,
    ),
    "data": (Annotated[str | None, Parameter(help="Another data set than the net's own.")], None),
    "split": (
        Annotated[Literal["train", "validation", "test"], Parameter(help="Part of the data.")],
        "train",
    ),
    "images": (Annotated[int, Parameter(help="Images to use; 0 for the whole split.")], 1000),
    "batch": (Annotated[int, Parameter(help="Images at a time.")], 128),
    "batch_norm": (
        Annotated[Literal["eval", "train"], Parameter(help="Running statistics, or each batch's.")],
        "eval",
    ),
    "device": (Annotated[str, Parameter(help="auto, cpu, cuda or cuda:N.")], "auto"),
    "json": (JSON, False),
    "debug": (DEBUG, False),
}
LOOK = ("split", "batch", "data", "batch_norm", "device")
PLAIN = (int, float, str, bool)


def __getattr__(name: str) -> Callable[..., Any]:
    """The command of a diagnostic, built when it is asked for, so that help needs no torch."""
    if name not in DIAGNOSTICS:
        raise AttributeError(f"module 'sparsediag.cli' has no attribute '{name}'")
    return _command(name, getattr(sparsediag, name))


def _command(name: str, diagnostic: Callable[..., Result]) -> Callable[..., None]:
    signature, hints = inspect.signature(diagnostic).parameters, typing.get_type_hints(diagnostic)
    text = parse(diagnostic.__doc__ or "")
    explained = {p.arg_name: p.description for p in text.params}
    own = {
        key: (Annotated[hints[key], Parameter(help=explained.get(key))], signature[key].default)
        for key in signature
        if _settable(hints[key])
    }

    def command(checkpoint: Path, **given: Any) -> None:
        from sparsediag import terminal
        from sparsediag.checkpoint import Checkpoint

        shared = {key: given.pop(key, default) for key, (_, default) in SHARED.items()}
        if shared["images"] < 0 or shared["batch"] < 1:
            raise ValueError("--images needs 0 or more, --batch needs 1 or more")
        look = {key: shared[key] for key in LOOK} | {"images": shared["images"] or None}
        load: Callable[[Checkpoint], Problem] = partial(Checkpoint.problem, **look)
        work: Callable[..., Result] = diagnostic
        takes, subject = set(hints), typing.cast(Any, checkpoint)
        if checkpoint.is_dir():
            if name != "spectrum":
                raise ValueError(f"{checkpoint} is a folder; {name} needs one checkpoint of it")
            out = shared["out"] or checkpoint / "spectrum.npz"
            asked = f"{checkpoint.resolve()} {look}"
            work, takes = partial(sparsediag.trajectory, load=load), {"resume", "progress"}
        else:
            kept = Checkpoint.load(checkpoint)
            out = shared["out"] or checkpoint.with_name(f"{checkpoint.stem}-{name}.npz")
        if out.suffix != ".npz":
            raise ValueError(f"--out {out}: results are written as .npz; use that ending")
        if not checkpoint.is_dir():
            subject = load(kept)
            asked = subject.digest
        if "resume" in takes:
            asked = f"{asked} {sorted(given.items())}"
            unfinished = f".{out.stem}-{sha256(asked.encode()).hexdigest()[:10]}.unfinished.npz"
            given["resume"] = out.with_name(unfinished)
        with terminal.bar(name) as progress:
            if "progress" in takes:
                given["progress"] = progress
            result = work(subject, **given)
        files = [str(file) for file in _write(result, out)]
        if "resume" in given:
            given["resume"].unlink(missing_ok=True)
        if shared["json"]:
            print(dumps({**result.json(), "files": files}))
        else:
            terminal.table(name, result.table())
            print(*result.remarks(), "wrote " + " ".join(files), sep="\n")

    parameters = [
        inspect.Parameter("checkpoint", inspect.Parameter.POSITIONAL_ONLY, annotation=CHECKPOINT),
        *(
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
            for key, (hint, default) in {**own, **SHARED}.items()
        ),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__name__ = name
    return command


def _settable(hint: Any) -> bool:
    """Whether an option can be typed: a number, a word, or one of some words."""
    if typing.get_origin(hint) is Literal or hint in PLAIN:
        return True
    args = typing.get_args(hint)
    return type(None) in args and all(a in PLAIN or a is type(None) for a in args)


def info(
    checkpoint: CHECKPOINT,
    /,
    *,
    json: JSON = False,
    debug: DEBUG = False,
) -> None:
    """What a checkpoint holds: the net, its mask layer by layer, and how the training went."""
    from sparsediag import terminal
    from sparsediag.checkpoint import Checkpoint

    about = Checkpoint.load(checkpoint).about()
    if json:
        print(dumps(about))
        return
    layers = about.pop("layers")
    terminal.facts(str(checkpoint), about)
    rows = [
        {"weight": name, "alive": f"{alive:,}", "of": f"{size:,}", "density": f"{alive / size:.2%}"}
        for name, alive, size in layers
    ]
    terminal.table("\nmask", rows)


def _write(result: Result, out: Path) -> list[Path]:
    """The result, its picture, and a page to turn it around where there is a surface."""
    from sparsediag import plotting
    from sparsediag.diagnostics.landscape import Landscape

    files = [result.save(out), out.with_suffix(".png")]
    with plotting.style():
        axes = result.plot()
        plotting.save(typing.cast(Any, axes.figure), out.with_suffix(""))
    if isinstance(result, Landscape):
        plotting.write_html(result.surface(), out.with_suffix(".html"))
        files.append(out.with_suffix(".html"))
    return files


def main(argv: list[str] | None = None) -> int:
    """Run one command. What the user can mend is one line on stderr and exit code 2."""
    settle()
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
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError" or "--debug" in words:
            raise
        print("the GPU has too little memory; use a smaller --batch", file=sys.stderr)
        return 2
    return 0
