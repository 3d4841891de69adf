"""GraSP: keep the weights whose removal would most reduce the gradient flow (Wang et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from typing import Any

from torch import Tensor

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.losses import map_outputs
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import layer_weights, prunable
from training.masks.base import Method


@dataclass(frozen=True)
class Grasp(Method):
    """GraSP: prune the weights with the largest score -w (Hg) (equation 8).

    Removing w changes the gradient flow g.g by about -2 w (Hg). As in the authors' code, g and H
    are those of the weights of convolutions and linear layers, the classifier included; biases and
    norms do not count.

    Attributes:
        per_class: Training images of each class that the loss is computed on.
        temperature: Divisor of the outputs of the network.
    """

    per_class: int = 10  # type: ignore[misc]
    temperature: float = 200.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature}: need a positive number")

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """Keep the highest w (Hg) of all layers together."""
        return Mask.top(scores(problem, temperature=self.temperature), self.density)


def scores(problem: Problem, *, temperature: float = 200.0) -> dict[str, Tensor]:
    """Return w (Hg) of the prunable weights, for the loss of outputs / temperature.

    g is the gradient by the weights of all convolutions and linear layers, H their Hessian.
    """

    def cool(t: Tensor) -> Tensor:
        return t / temperature if t.is_floating_point() else t

    def tempered(outputs: Any, targets: Any) -> Tensor:
        return problem.loss(map_outputs(outputs, cool), targets)

    layers = ",".join(map(escape, layer_weights(problem.net)))
    tempered_problem = problem.view(loss=tempered, params=layers)
    by_name = tempered_problem.split(tempered_problem.hvp().mul_(tempered_problem.weights))
    return {name: by_name[name] for name in prunable(problem.net)}
