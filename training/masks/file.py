"""A mask from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsediag.checkpoint import mask_file
from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.fingerprint import file_state, fingerprint_files
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from training.masks.base import Method


@dataclass(frozen=True)
class File(Method):
    """Read the mask from a file; `mask = "file:PATH"` is short for it.

    The id of a run depends on the path and on the content of the file.

    Attributes:
        path: A mask file, a checkpoint, or a file of another tool (see `sparsediag.maskfile.load`).
        zeros: If the file has no mask, take the exact zeros of its weights for dead.
    """

    path: str = ""
    zeros: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ValueError("path: need the file of a mask, as in mask = 'file:PATH'")
        if self.density != 1:
            raise ValueError(f"density {self.density}: the file says it; leave it out")

    def input_digest(self) -> str:
        path = Path(self.path)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        states = tuple((str(file), *file_state(file)) for file in files if file.is_file())
        return fingerprint_files(Path(), states) if states else ""

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """Return the mask of the file, if it fits the network."""
        weights = dict(problem.net.named_parameters())
        return mask_file.load(self.path, zeros=self.zeros, weights=weights)
