"""A mask from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsediag.checkpoint import mask_file
from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from training.masks.base import Method


@dataclass(frozen=True)
class File(Method):
    """The mask in a file; `mask = "file:PATH"` is short for it.

    A run is known by the path, not by what the file holds: give another mask another name.

    Attributes:
        path: A mask of ours, a checkpoint, or a file of others: see `sparsediag.maskfile`.
        zeros: Take the exact zeros of the file's weights for dead, if it holds no mask.
    """

    path: str = ""
    zeros: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ValueError("path: need the file of a mask, as in mask = 'file:PATH'")
        if self.density != 1:
            raise ValueError(f"density {self.density}: the file says it; leave it out")

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """The mask, if it fits the net."""
        mask = mask_file.load(self.path, zeros=self.zeros)
        try:
            mask.check(problem.net)
        except ValueError as error:
            raise ValueError(f"{self.path} does not fit the net: {error}") from None
        return mask
