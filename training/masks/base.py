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
        density: Share of the prunable weights that is kept; 0.1 is 90 % sparsity.
        per_class: Training images of each class that scores are measured on; 0 where none are.
    """

    density: float = 1.0
    per_class: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ValueError(
                f"density {self.density}: need a number in (0, 1]. "
                "For 90 % sparsity write density = 0.1."
            )
        object.__setattr__(self, "density", float(f"{self.density:.12g}"))  # 0.8 ** 11, or typed

    def before(self) -> tuple[Prerequisite, ...]:
        """Return the runs that must be finished first, because the mask is drawn from them."""
        return ()

    def origin(self, rewind: float) -> Prerequisite:
        """Return the run whose weights the survivors go back to.

        Args:
            rewind: To what share of that run; 1 is its end.
        """
        return Prerequisite()

    @abstractmethod
    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask | None:
        """The mask to train with.

        Args:
            problem: The net at its initialisation, with a sample of the training images: for scores
                a balanced one, and batch norm by batches.
            trained: The last checkpoint of each run that `before` asked for.
            seed: Seed of whatever is random.
        """

    def keeper(
        self,
        net: nn.Module,
        mask: Mask | None,
        optimiser: torch.optim.Optimizer,
        *,
        steps: int,
        seed: int,
        taken: int = 0,
    ) -> MaskedOptimizer:
        """Return the optimizer that keeps the mask while the network trains.

        Args:
            net: With the mask applied.
            mask: The mask that `start` made.
            optimiser: Of the net's parameters.
            steps: Steps of the whole training.
            seed: Seed of whatever is random.
            taken: Steps that lie behind the weights already.
        """
        return MaskedOptimizer(net, mask, optimiser)
