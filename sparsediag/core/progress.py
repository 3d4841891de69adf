"""Report the progress of a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def track(
    items: Iterable[T], progress: Callable[[int, int], None] | None, total: int | None = None
) -> Iterator[T]:
    """Yield the items, and call `progress(done, total)` after each of them.

    The total is the number of items; give it for those that have no length.

    >>> list(track("ab", print))
    1 2
    2 2
    ['a', 'b']
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    for done, item in enumerate(items, 1):
        yield item
        if progress:
            progress(done, total or done)
