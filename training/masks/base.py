"""Base class of pruning methods: fields are options in a run file, under `[mask]`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from training.keeper import MaskedOptimizer
from training.prerequisite import Prerequisite


@dataclass(frozen=True)
class Method(ABC):
    """A pruning method.

    Attributes:
        density: Fraction of the prunable weights that is kept; 0.1 is 90 % sparsity.
        per_class: Training images of each class that scores are computed on; 0 without scores.
    """

    density: float = 1.0
    per_class: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ValueError(
                f"density {self.density}: need a number in (0, 1]. "
                "For 90 % sparsity write density = 0.1."
            )
        # 0.8 ** 11 and the number that a user types for it are one density
        object.__setattr__(self, "density", float(f"{self.density:.12g}"))

    def before(self) -> tuple[Prerequisite, ...]:
        """Return the runs that must be finished first, because the mask depends on them."""
        return ()

    def rewind_source(self, rewind: float) -> Prerequisite:
        """Return the run that the weights are rewound to; `rewind` = 1 is its end."""
        return Prerequisite()

    def input_digest(self) -> str:
        """Return a digest of the files that the mask depends on; it enters the id of the run."""
        return ""

    @abstractmethod
    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask | None:
        """Return the mask of the first step, or None for a dense network.

        Args:
            problem: The network at its initialisation, on training images: `per_class` of each
                class and batch norm by batches, or a sample of them.
            trained: The last checkpoint of each run of `before`.
            seed: Seed of random choices.
        """

    def keeper(
        self,
        net: nn.Module,
        mask: Mask | None,
        optimizer: torch.optim.Optimizer,
        *,
        steps: int,
        seed: int,
        steps_taken: int = 0,
    ) -> MaskedOptimizer:
        """Return the optimizer that keeps the mask, or moves it, while the network trains.

        Args:
            net: The network.
            mask: The mask that `start` returned.
            optimizer: An optimizer of the parameters of `net`.
            steps: Steps of the whole training.
            seed: Seed of random choices.
            steps_taken: Steps that the weights were already trained for.
        """
        return MaskedOptimizer(net, mask, optimizer)
