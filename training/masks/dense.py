"""No pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.problem import Problem
from training.masks.base import Method


@dataclass(frozen=True)
class Dense(Method):
    """Keep every weight."""

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> None:
        """Return no mask."""
        if self.density != 1:
            raise ValueError(
                f"density {self.density} with method 'dense'; name a pruning method in [mask]"
            )
