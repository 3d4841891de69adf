"""GraSP: keep the weights whose removal would most reduce the gradient flow (Wang et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import prunable
from training.masks.base import Method


@dataclass(frozen=True)
class Grasp(Method):
    """Removing w changes g.g, the flow, by about -2 w (Hg); the smallest -w (Hg) stay (equation 8).

    Attributes:
        per_class: Images of each class that the loss is measured on.
        temperature: By which the net's outputs are divided.
    """

    per_class: int = 10  # type: ignore[misc]
    temperature: float = 200.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature}: need a positive number")

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """The highest w (Hg), over all layers together."""
        return Mask.top(scores(problem, temperature=self.temperature), self.density)


def scores(problem: Problem, *, temperature: float = 200.0) -> dict[str, Tensor]:
    """W (Hg) of the prunable weights, at a loss whose outputs are divided by a temperature."""

    def tempered(outputs: Any, targets: Any) -> Tensor:
        return problem.loss(outputs / temperature, targets)

    warm = problem.view(loss=tempered)
    of = warm.split(warm.hvp().mul_(warm.weights))
    return {name: of[name] for name in prunable(problem.net)}
