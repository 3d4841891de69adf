"""RigL: a mask that moves while the network trains (Evci et al., ICML 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sparsediag.core.mask import Mask
from sparsediag.core.rng import stream
from training.keeper import Closure, MaskedOptimizer
from training.masks.layer_densities import top_per_layer
from training.masks.random import Random


@dataclass(frozen=True)
class Rigl(Random):
    """RigL: drop the smallest live weights at intervals, and grow dead ones by their gradient.

    In step t a fraction f(t) = drop_fraction / 2 (1 + cos(pi t / T)) of each layer's live weights
    is replaced, until T = `end` x all steps. Grown weights start at 0, and such a step has no
    update of the optimizer (algorithm 1). Steps are counted from 0, so that `update_interval`
    updates come before the first move; the package rigl-torch counts from 1 and moves a step
    earlier.

    Attributes:
        scope: Densities of the layers, which stay: "global", about the same for each; "layer",
            exactly the same; "erk", Erdos-Renyi-Kernel.
        update_interval: Steps between two moves of the mask.
        drop_fraction: Fraction of a layer's live weights that a move replaces at first.
        end: Fraction of the training after which the mask stays.
    """

    scope: Literal["global", "layer", "erk"] = "erk"
    update_interval: int = 100
    drop_fraction: float = 0.3
    end: float = 0.75
    replaces_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.update_interval < 1:
            raise ValueError(f"update_interval = {self.update_interval}: need 1 step or more")
        for key in ("drop_fraction", "end"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key} = {getattr(self, key)}: need a share from 0 to 1")

    def fraction(self, step: int, steps: int) -> float:
        """Return the fraction f(t) that a step replaces, counted from 0.

        >>> rigl = Rigl(density=0.1)
        >>> [round(rigl.fraction(t, 1000), 3) for t in (0, 100, 101, 300, 700, 800)]
        [0.0, 0.287, 0.0, 0.196, 0.003, 0.0]
        """
        end = self.end * steps
        if step == 0 or step % self.update_interval or step >= end:
            return 0.0
        return self.drop_fraction / 2 * (1 + math.cos(math.pi * step / end))

    def growth_scores(self, gradient: Tensor, generator: torch.Generator) -> Tensor:
        """Return the scores by which dead weights grow: the size of their gradient."""
        return gradient.abs()

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
        """Return an optimizer that moves the mask."""
        return MovingMaskOptimizer(self, net, mask, optimizer, steps, seed, steps_taken)


class MovingMaskOptimizer(MaskedOptimizer):
    """A masked optimizer whose mask moves; for the arguments see `Method.keeper`."""

    masks_backward = False

    def __init__(
        self,
        method: Rigl,
        net: nn.Module,
        mask: Mask | None,
        optimiser: torch.optim.Optimizer,
        steps: int,
        seed: int,
        steps_taken: int,
    ) -> None:
        self.method, self.steps, self.seed, self.steps_taken = method, steps, seed, steps_taken
        super().__init__(net, mask, optimiser)

    @property
    def fraction(self) -> float:
        """Fraction of the live weights that the next step replaces."""
        return self.method.fraction(self.steps_taken, self.steps) if self.mask else 0.0

    @property
    def repeats(self) -> bool:
        return not self.fraction

    def update(self, closure: Closure | None = None) -> Any:
        """Take a step of the optimizer, or move the mask by the gradients of all weights."""
        fraction = self.fraction
        if not fraction or self.mask is None:
            return super().update(closure)
        loss = torch.enable_grad()(closure)() if closure else None
        generator = stream("growth", self.seed, self.steps_taken)
        weights: dict[str, Tensor] = dict(zip(self.mask, self.weights, strict=True))
        scores = {
            name: self.method.growth_scores(
                torch.zeros_like(w) if w.grad is None else w.grad, generator
            )
            for name, w in weights.items()
        }
        if self.method.replaces_step:
            self.mask_gradients()
        else:
            loss = super().update(closure)
        self.set_mask(move_mask(self.mask, weights, scores, fraction))
        return loss

    def count(self) -> None:
        self.steps_taken += 1
        super().count()

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.steps_taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps_taken = state["taken"]


@torch.no_grad()
def move_mask(
    mask: Mask, weights: dict[str, Tensor], scores: dict[str, Tensor], fraction: float
) -> Mask:
    """Drop the smallest live weights of each layer and grow as many with the highest scores.

    A dropped weight whose score is among the highest grows again, so it stays as it is.

    Args:
        mask: The live weights.
        weights: By name, as the mask.
        scores: The growth scores, likewise.
        fraction: Fraction of the live weights to drop; rounded down to integers in each layer.
    """
    alive = {name: int(m.sum()) for name, m in mask.items()}
    grown = {name: int(fraction * count) for name, count in alive.items()}
    sizes = {name: weights[name].abs().masked_fill(~m, -1) for name, m in mask.items()}
    stay = top_per_layer(sizes, {name: alive[name] - grown[name] for name in mask})
    others = {name: scores[name].masked_fill(stay[name], -math.inf) for name in mask}
    return stay | top_per_layer(others, grown)
