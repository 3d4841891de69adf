"""Progress bars with the time left, and tables, in a terminal."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

Justify = Literal["left", "right"]
BLOCKS = "▁▂▃▄▅▆▇█"
PIPE_WIDTH = 160  # columns of a table that no terminal cuts
SECONDS_A_LINE = 30.0  # between two lines of progress, where there are no bars
SECONDS_OF_SPEED = 600.0  # the time left is estimated from the steps of the last so many
AS_IT_IS: dict[str, Any] = {  # names may hold [bold] or :fire:; in Jupyter, a result has HTML
    "markup": False,
    "emoji": False,
    "force_jupyter": False,
}


class _Counts(ProgressColumn):
    """The steps done, the time taken and the time left of a bar."""

    def render(self, task: Task) -> Text:
        return Text(_counts(task))


@contextmanager
def progress_bars(transient: bool = False, *, quiet: bool = False) -> Iterator[Progress]:
    """Show progress bars on stderr, with the steps done, the time taken and the time left.

    Where stderr is no terminal, a line says so for each bar, every `SECONDS_A_LINE`.

    Args:
        transient: Remove the bars at the end.
        quiet: Show nothing.
    """
    console, ended = Console(stderr=True, quiet=quiet), threading.Event()
    has_bars = console.is_terminal and not quiet
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        _Counts(),
        console=console,
        transient=transient,
        speed_estimate_period=SECONDS_OF_SPEED,
        disable=not has_bars,
    )

    def print_lines() -> None:
        while not ended.wait(SECONDS_A_LINE):
            for task in bars.tasks:
                if not task.finished:
                    print(f"{task.description}: {_counts(task)}", file=sys.stderr, flush=True)

    with bars:
        if not has_bars and not quiet:
            threading.Thread(target=print_lines, daemon=True).start()
        try:
            yield bars
        finally:
            ended.set()


def _counts(task: Task) -> str:
    """Return a task's progress in words: done, elapsed, left."""
    elapsed, left = (timedelta(seconds=round(s or 0)) for s in (task.elapsed, task.time_remaining))
    done = f"{int(task.completed + 1e-6)} of {task.total:.0f} done, " if task.total else ""
    about = f", {left} left" if task.time_remaining else ""
    return f"{done}{elapsed} elapsed{about}"


@contextmanager
def progress_bar(name: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar inside the block; yield `progress(done, total)`."""
    with progress_bars(transient=True, quiet=quiet) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def print_table(title: str, rows: list[dict[str, Any]], *, justify: Justify = "right") -> None:
    """Print rows with the same keys as a table; keys become the heads of the columns."""
    console = Console(**AS_IT_IS)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    if rows:
        console.print(new_table(title, rows, justify))


def sparkline(heights: Sequence[float]) -> str:
    """Return a small curve, a letter for each number; in the logarithm if they span a decade.

    A dot is where a number is not finite; a line says that all are the same.

    >>> sparkline([1, 2, float("nan"), 3]), sparkline([1, 10, 100])
    ('▁▅·█', '▁▅█')
    """
    values = np.array(heights, dtype=float)
    known = values[np.isfinite(values)]
    if not known.size:
        return ""
    if 0 < 10 * known.min() <= known.max():
        values, known = np.log(values), np.log(known)
    scaled = (values - known.min()) / (np.ptp(known) or 1)
    blocks = BLOCKS if np.ptp(known) else "─"
    return "".join(blocks[round(7 * s)] if np.isfinite(s) else "·" for s in scaled)


def format_table(title: str, rows: list[dict[str, Any]]) -> str:
    """Return the table as text.

    >>> print(format_table("net", [{"layer": "fc", "loss": 0.5}]))
    net
    layer  loss
    fc      0.5
    """
    buffer = io.StringIO()
    console = Console(**AS_IT_IS, width=PIPE_WIDTH, file=buffer, color_system=None)
    console.print(new_table(title, rows) if rows else title)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def new_table(title: str, rows: list[dict[str, Any]], justify: Justify = "right") -> Table:
    """Return a rich table; the first column is never broken, the others fold."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for i, key in enumerate(rows[0]):
        side = "left" if i == 0 else justify
        table.add_column(key, justify=side, overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    return table


def print_facts(title: str, values: dict[str, Any]) -> None:
    """Print names and values, one a line."""
    console = Console(**AS_IT_IS, highlight=False, soft_wrap=True)
    console.print(title, style="italic")
    width = max(map(len, values))
    for name, value in values.items():
        text = f"{value:.6g}" if isinstance(value, float) else value
        console.print(f"{name:<{width}}  {text}")
