"""SNIP: keep the connections whose removal would change the loss most (Lee et al., ICLR 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import prunable
from training.masks.base import Method


@dataclass(frozen=True)
class Snip(Method):
    """SNIP: keep the largest |dL/dm| at m = 1, which is |w dL/dw| (equation 6).

    Attributes:
        per_class: Training images of each class that the loss is computed on.
    """

    per_class: int = 10  # type: ignore[misc]

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """Keep the highest scores of all layers together."""
        return Mask.top(scores(problem), self.density)


def scores(problem: Problem) -> dict[str, Tensor]:
    """Return |w dL/dw| of the prunable weights."""
    by_name = problem.split(problem.gradient().mul_(problem.weights).abs_())
    return {name: by_name[name] for name in prunable(problem.net)}
