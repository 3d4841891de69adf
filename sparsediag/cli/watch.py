"""The command `watch`: the rows that trainings have written so far, live in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from sparsediag.checkpoint.labels import file_labels
from sparsediag.cli import output
from sparsediag.cli.options import DEBUG, JSON
from sparsediag.plotting import terminal

if TYPE_CHECKING:
    from sparsediag.diagnostics.recording import Recording

CHANGE = "change: median of the last tenth of the rows against the tenth before"
SECONDS = 1.0  # between two looks at the files
LEAST, MOST = 5, 40  # letters of a curve


def watch(
    *files: Annotated[
        Path,
        Parameter(
            help="Files of sd.Watch, or folders with a watch.jsonl or history.jsonl (default: "
            "watch.jsonl)."
        ),
    ],
    once: Annotated[
        bool,
        Parameter(help="Print the table once, as without a terminal.", negative=""),
    ] = False,
    out: Annotated[
        Path | None,
        Parameter(help="Write the rows to this file, .npz, with a picture of all metrics, .png."),
    ] = None,
    formats: Annotated[str, Parameter(help="Formats beside it: png, pdf, svg, csv.")] = "png",
    names: Annotated[
        str | None,
        Parameter(help="Names of the trainings, by commas (default: what tells them apart)."),
    ] = None,
    json: JSON = False,
    debug: DEBUG = False,
) -> None:
    """Show the last value, the change and a curve of all numbers of a training, until Ctrl-C."""
    from sparsediag.diagnostics.recording import read_watch  # imports torch

    kinds = output.parse_formats(formats, exports=["csv"])
    if out:
        output.check(out)
    paths = list(files) or [Path()]
    labels = names and file_labels(paths, [], names)
    recording = read_watch(*paths, labels=labels)
    if sys.stdout.isatty() and not (once or json or out):
        with suppress(KeyboardInterrupt):
            _follow(recording, paths, labels)
        return
    written = output.write(recording, out, formats=kinds) if out else {}
    if json:
        print(dumps({**recording.json(), "files": [str(file) for file in written]}))
        return
    console = Console(**terminal.AS_IT_IS)
    width = console.width if console.is_terminal else terminal.PIPE_WIDTH
    rows = _fitting_rows(recording, width)
    terminal.print_table(recording.title, rows, justify=_side(recording))
    print(*_below(recording), CHANGE, *output.describe_files(written), sep="\n")


def _follow(recording: Recording, paths: Sequence[Path], labels: Sequence[str] | None) -> None:
    """Show the table and read the files again, forever; a file that is gone is told below it."""
    from sparsediag.diagnostics.recording import read_watch  # imports torch

    console, wait, problem = Console(**terminal.AS_IT_IS), SECONDS, ""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            rows, lines = _fitting_rows(recording, console.width), [*_below(recording), problem]
            room = console.height - len(lines) - 4
            if len(rows) > room > 0:
                lines.insert(0, f"{len(rows) - room} more metrics: --once shows all")
                rows = rows[:room]
            table = (
                terminal.new_table(recording.title, rows, _side(recording))
                if rows
                else "no row yet"
            )
            below = Text("\n".join(filter(None, lines)), no_wrap=True, overflow="ellipsis")
            live.update(Group(table, below), refresh=True)
            time.sleep(wait)
            began = time.monotonic()
            try:
                recording, problem = read_watch(*paths, labels=labels), ""
            except (OSError, ValueError) as error:
                problem = str(error)
            wait = max(SECONDS, 9 * (time.monotonic() - began))  # a tenth of one core at most


def _below(recording: Recording) -> list[str]:
    """Return the lines below the table: rows, their age, and remarks."""
    newest = max(Path(file).stat().st_mtime for file in recording.files)
    ago = timedelta(seconds=max(0, int(time.time() - newest)))
    rows, *remarks = recording.below()
    return [f"last written {ago} ago; {rows}", *remarks]


def _side(recording: Recording) -> terminal.Justify:
    """Return where the cells begin: those of several trainings are aligned in themselves."""
    return "left" if len(recording.labels) > 1 else "right"


def _fitting_rows(recording: Recording, columns: int) -> list[dict[str, str]]:
    """Return the table with curves as wide as there is room for; if narrow, without the change."""
    if not recording.names:
        return []
    for parts in (("last", "change", "curve"), ("last", "curve")):
        rows = _join_cells(recording, LEAST, parts)
        widths = [max(len(head), *(len(row[head]) for row in rows)) + 2 for head in rows[0]]
        spare = (columns - sum(widths)) // len(recording.labels)
        if spare >= 0:
            break
    return _join_cells(recording, min(MOST, max(LEAST, LEAST + spare)), parts)


def _join_cells(recording: Recording, width: int, parts: Sequence[str]) -> list[dict[str, str]]:
    """Return these parts of the table; with several trainings, in one column for each of them."""
    rows = recording.table(width)
    if len(recording.labels) == 1:
        return [{head: row[head] for head in ("metric", *parts)} for row in rows]
    joined = [{"metric": row["metric"]} for row in rows]
    for label in recording.labels:
        own = [f"{part}, {label}" for part in parts]
        widths = [max(len(row[head]) for row in rows) for head in own]
        for cells, row in zip(joined, rows, strict=True):
            texts = [f"{row[head]:>{size}}" for head, size in zip(own, widths, strict=True)]
            cells[label] = "  ".join(texts)
    return joined
