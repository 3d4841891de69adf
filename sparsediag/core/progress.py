"""Report the progress of a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def track(items: Sequence[T], progress: Callable[[int, int], None] | None) -> Iterator[T]:
    """Yield the items, and call `progress(done, total)` after each of them.

    >>> list(track("ab", print))
    1 2
    2 2
    ['a', 'b']
    """
    for done, item in enumerate(items, 1):
        yield item
        if progress:
            progress(done, len(items))
