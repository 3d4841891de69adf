"""Place: where the sections measure, how large, and until when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

Row = dict[str, Any]
Measurement = tuple[str, Callable[[], Row]]  # what it is, and how to get its numbers
Measurements = Iterator[Measurement]
T = TypeVar("T")


class Skip(Exception):
    """A measurement that cannot be made here; says why."""


@dataclass(frozen=True)
class Place:
    """What the sections are told.

    Attributes:
        device: Where they measure.
        dry: At tiny sizes, to see that everything runs.
        data: folder:PATH of images of 3 x 32 x 32 pixels, or None for digits and random ones.
        out: Folder to write to.
        until: When to begin nothing more, by `time.monotonic()`.
    """

    device: torch.device
    dry: bool
    data: str | None
    out: Path
    until: float

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.until - time.monotonic()

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device.type == "cuda"

    def size(self, full: T, dry: T) -> T:
        """`full`, or `dry` where it is but tried."""
        return dry if self.dry else full

    @property
    def compiler(self) -> str:
        """What `torch.compile` compiles with; a dry call does not wait for it."""
        return self.size("inductor", "aot_eager")

    def needs_cuda(self, what: str) -> None:
        """Skip what only a GPU has."""
        if not self.cuda:
            raise Skip(f"no {what} on a CPU")


def check(row: Row, **holds: bool) -> Row:
    """The row, marked as wrong and saying what does not hold, if anything does not."""
    broken = [what.replace("_", " ") for what, good in holds.items() if not good]
    return row | ({"status": "wrong", "note": f"not {', not '.join(broken)}"} if broken else {})
