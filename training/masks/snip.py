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
    """The largest |dL/dm| at m = 1, which is |w dL/dw| (equation 6).

    Attributes:
        per_class: Images of each class that the loss is measured on.
    """

    per_class: int = 10  # type: ignore[misc]

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """The highest scores, over all layers together."""
        return Mask.top(scores(problem), self.density)


def scores(problem: Problem) -> dict[str, Tensor]:
    """|w dL/dw| of the prunable weights."""
    of = problem.split(problem.gradient().mul_(problem.weights).abs_())
    return {name: of[name] for name in prunable(problem.net)}
