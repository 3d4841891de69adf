"""What a person sees in a terminal: bars with the time left, and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

PIPE_WIDTH = 160  # columns of a table that no terminal cuts


def bars(transient: bool = False) -> Progress:
    """Progress bars on stderr, with what is done, the time taken and the time left.

    Where stderr is no terminal, nothing is drawn.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
        disable=not console.is_terminal,
    )


@contextmanager
def bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """One bar, gone when the block ends; yields `progress(done, total)`."""
    with bars(transient=True) as shown:
        task = shown.add_task(name, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows with the same keys as a table; keys become the heads of the columns."""
    if not rows:
        return
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for i, key in enumerate(rows[0]):
        shown.add_column(key, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(str(value) for value in row.values()))
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    console.print(shown)


def facts(title: str, values: dict[str, Any]) -> None:
    """Print names and values, one a line."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(title, style="italic", markup=False)
    width = max(map(len, values))
    for name, value in values.items():
        shown = f"{value:.6g}" if isinstance(value, float) else value
        console.print(f"{name:<{width}}  {shown}", markup=False)
