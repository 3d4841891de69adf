"""Settings of a call: device, sizes, data and time limit; and the rows of a section."""

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
    """Raised by a measurement that is not possible here, with the reason."""


@dataclass(frozen=True)
class Settings:
    """Device, sizes, data and time limit of a section.

    Attributes:
        device: Where to measure.
        dry: Use tiny sizes, only to run every line once.
        data: folder:PATH of images of 3 x 32 x 32 pixels, or None for digits and random ones.
        out: Folder to write to.
        deadline: The time after which no measurement starts, by `time.monotonic()`.
    """

    device: torch.device
    dry: bool
    data: str | None
    out: Path
    deadline: float

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return self.deadline - time.monotonic()

    @property
    def cuda(self) -> bool:
        """Return whether the device is a GPU."""
        return self.device.type == "cuda"

    def size(self, full: T, dry: T) -> T:
        """Return `full`, or `dry` in a dry call."""
        return dry if self.dry else full

    @property
    def compiler(self) -> str:
        """Return the backend of `torch.compile`; a dry call uses one that compiles in no time."""
        return self.size("inductor", "aot_eager")

    def needs_cuda(self, what: str) -> None:
        """Skip the measurement unless the device is a GPU."""
        if not self.cuda:
            raise Skip(f"no {what} on a CPU")


def check(row: Row, **holds: bool) -> Row:
    """Return the row, marked as wrong with a note of each condition that does not hold."""
    broken = [what.replace("_", " ") for what, good in holds.items() if not good]
    return row | ({"status": "wrong", "note": f"not {', not '.join(broken)}"} if broken else {})
