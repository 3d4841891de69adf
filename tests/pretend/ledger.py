"""Ledger: what a GPU would have done, and where in the code it was asked for."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = tuple(str(ROOT / part) for part in ("sparsediag", "training", "figures", "tests"))
OWN = str(Path(__file__).parent)


class Mismatch(RuntimeError):
    """Something that raises on a GPU."""


@dataclass
class Ledger:
    """What has happened so far.

    Attributes:
        operations: Operations on the device, views left out.
        waits: Times that the host waited for the device, by place.
        copies: Copies between host and device, by place.
        mismatches: What would have raised on CUDA; kept too where the code catches the error.
    """

    operations: int = 0
    waits: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    mismatches: list[str] = field(default_factory=list)

    def wait(self, what: str) -> None:
        """Count a wait of the host."""
        self.waits[f"{what} at {place()}"] += 1

    def copy(self, what: str, *, waits: bool = True) -> None:
        """Count a copy between host and device, for which the host waits unless told otherwise."""
        self.copies[f"{what} at {place()}"] += 1
        if waits:
            self.wait(what)

    def mismatch(self, text: str, kind: type[Exception] = Mismatch) -> Exception:
        """Note a mistake; returns the error to raise."""
        self.mismatches.append(f"{text} at {place()}")
        return kind(self.mismatches[-1])


def place() -> str:
    """Return the file and line of this repository that the call came from."""
    frame = sys._getframe(1)
    while frame:
        file, handler = frame.f_code.co_filename, frame.f_code.co_name == "__torch_function__"
        own = file.startswith(OWN) and "scenarios" not in file
        if file.startswith(CODE) and not own and not handler:
            return f"{Path(file).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"
