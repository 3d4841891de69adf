"""The command `sparsediag`: its subcommands, and how their errors are shown."""

from __future__ import annotations

import importlib
import sys
from difflib import get_close_matches
from importlib.metadata import entry_points

from cyclopts import App, CycloptsError, MissingArgumentError, RepeatArgumentError
from cyclopts.exceptions import UnknownCommandError, UnknownOptionError, UnusedCliTokensError

from sparsediag.core.process import CLOSED_PIPE, configure_process, reader_is_gone
from sparsediag.core.version import __version__
from sparsediag.diagnostics import ADDED, DIAGNOSTICS

app = App(
    name="sparsediag",
    help="See what happens inside sparse neural networks.",
    help_epilogue="Your own diagnostics: add `--plugin FILE.py` to any command. Exit code: 0, 2 "
    "after an error, 3 if a result was written that did not converge (a line says why and what to "
    "do), 130 after an interruption.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
# named by strings, and imported when they are called, so that `sparsediag --help` needs no torch
app.command(
    "sparsediag.cli.report:command",
    name="report",
    help="all diagnostics of one or several networks, on one HTML page",
)
app.command(
    "sparsediag.cli.info:info", name="info", help="contents of a checkpoint, layer by layer"
)
app.command(
    "sparsediag.cli.info:join", name="join", help="one landscape from the shards of `--shard`"
)
app.command(
    "sparsediag.cli.runs:runs",
    name="runs",
    help="table and picture of many trainings: accuracy by method and sparsity, with intervals",
)
app.command(
    "sparsediag.cli.watch:watch",
    name="watch",
    help="numbers of a training that sd.Watch records, live in the terminal, or as a picture",
    help_epilogue="`sparsediag watch watch.jsonl` shows the last value of each metric (* did not "
    "converge), its change (median of the last tenth of the rows against the tenth before) and a "
    "small curve, until Ctrl-C. `sparsediag watch a.jsonl b.jsonl --out both.npz` draws two "
    "trainings on common axes, in both.png.",
)
TRAINING = "training.__main__"
app.command(f"{TRAINING}:main", name="train", help="train a network, as `python -m training` does")
for _name, _summary in DIAGNOSTICS.items():
    app.command(f"sparsediag.cli.commands:{_name}", name=_name, help=_summary)
BUILT_IN = frozenset(app)


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    An error that the user can fix is one line on stderr and exit code 2; any other is raised. The
    code of a result that did not converge is 3.
    """
    configure_process()
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["train"]:  # its options are the keys of run files
        exit_code: int = importlib.import_module(TRAINING).main(words[1:])
        return exit_code
    try:
        words = add_plugins(words)
        return app(words, exit_on_error=False, print_error=False) or 0
    except KeyboardInterrupt as error:
        print(str(error) or "interrupted", file=sys.stderr)
        return 130
    except (CycloptsError, ValueError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            return CLOSED_PIPE
        message = _message(error)
        if message is None or "--debug" in words:
            raise
        print(message, file=sys.stderr)
        return 2


def add_plugins(words: list[str]) -> list[str]:
    """Make commands of the diagnostics of plug-ins; return the words without `--plugin FILE`.

    Raises:
        ValueError: If a file cannot be imported, has no diagnostic, or a name in it is taken.
    """
    files, rest, others = list[str](), iter(words), list[str]()
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag == "--plugin":
            files.append(value if equals else next(rest, ""))
        else:
            others.append(word)
    if files or entry_points(group="sparsediag.plugins"):
        from sparsediag.diagnostics import plugins  # imports torch

        plugins.load_plugins(files, commands=BUILT_IN)
        for file in files:
            plugins.check_diagnostics(file)
        for name in ADDED:
            if name not in app:
                app.command(f"sparsediag.cli.commands:{name}", name=name, help=DIAGNOSTICS[name])
    return others


def _message(error: Exception) -> str | None:
    """Return a line for an error that the user can fix; None for another, which is a bug."""
    if isinstance(error, CycloptsError):
        return _usage_message(error)
    if isinstance(error, ValueError | OSError):
        return " ".join(str(error).split())
    out_of_memory = type(error).__name__ == "OutOfMemoryError"
    on_gpu = out_of_memory and "cpu" not in str(error).lower()
    if out_of_memory or isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        where = "the GPU has" if on_gpu else "there is"
        return f"{where} too little memory; reduce --batch-size, --memory or --points"
    return None


def _usage_message(error: CycloptsError) -> str:
    """Return a line for words that a command does not take, with what to do."""
    command = " ".join(["sparsediag", *(error.command_chain or [])])
    message = " ".join(str(error).split()).rstrip(".,")
    if isinstance(error, UnusedCliTokensError):
        message = f"{command} takes one checkpoint; leave out {' '.join(error.unused_tokens or [])}"
    elif isinstance(error, RepeatArgumentError):
        message += "; give it once"
    elif isinstance(error, UnknownCommandError):
        message = f"{message.partition(' Available')[0]} sparsediag --help lists the commands"
    elif isinstance(error, MissingArgumentError):
        message += f"; {command} --help explains it"
    elif isinstance(error, UnknownOptionError):
        flag = (error.token.keyword or error.token.value or "").lstrip("-")
        flags = [name.lstrip("-") for known in error.argument_collection for name in known.names]
        near = get_close_matches(flag, flags, n=1, cutoff=0.75)
        hint = f". Did you mean --{near[0]}?" if near else f"; {command} --help lists those it has"
        message = f"Unknown option: --{flag}{hint}"
    return message
