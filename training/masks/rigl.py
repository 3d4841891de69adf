"""RigL: a mask that moves while the net trains (Evci et al., ICML 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sparsediag.core.mask import Mask
from sparsediag.core.rng import stream
from training.keeper import MaskedOptimizer
from training.masks.layer_densities import best
from training.masks.random import Random


@dataclass(frozen=True)
class Rigl(Random):
    """Now and then the smallest weights die, and dead ones with the largest gradient come alive.

    A share f(t) = drop_fraction / 2 (1 + cos(pi t / T)) of each layer moves in step t, none from
    T = `end` x all steps on. What comes alive starts at 0; such a step is not the optimiser's.

    Attributes:
        scope: Shares of the layers at the start, and for good: see `Random`.
        update_interval: Steps from one move to the next.
        drop_fraction: Share of a layer's living weights that a move replaces at first.
        end: Share of the training after which the mask stays.
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

    def share(self, step: int, steps: int) -> float:
        """The share f(t) that moves in a step, counted from 0.

        >>> rigl = Rigl(density=0.1)
        >>> [round(rigl.share(t, 1000), 3) for t in (0, 100, 101, 300, 700, 800)]
        [0.0, 0.287, 0.0, 0.196, 0.003, 0.0]
        """
        end = self.end * steps
        if step == 0 or step % self.update_interval or step >= end:
            return 0.0
        return self.drop_fraction / 2 * (1 + math.cos(math.pi * step / end))

    def growth(self, gradient: Tensor, generator: torch.Generator) -> Tensor:
        """Return what dead weights are ranked by: the size of their gradient."""
        return gradient.abs()

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
        """Moves the mask in between the optimiser's steps."""
        return Mover(net, mask, optimiser, method=self, steps=steps, seed=seed, taken=taken)


class Mover(MaskedOptimizer):
    """A keeper whose mask moves."""

    def __init__(
        self,
        net: nn.Module,
        mask: Mask | None,
        optimiser: torch.optim.Optimizer,
        *,
        method: Rigl,
        steps: int,
        seed: int,
        taken: int = 0,
    ) -> None:
        self.method, self.steps, self.seed, self.taken = method, steps, seed, taken
        super().__init__(net, mask, optimiser)

    @property
    def share(self) -> float:
        """Share of the living weights that the next step moves."""
        return self.method.share(self.taken, self.steps) if self.mask else 0.0

    @property
    def repeats(self) -> bool:
        return not self.share

    def update(self) -> None:
        """A step of the optimiser, or a move of the mask by the gradients of all weights."""
        share = self.share
        if not share or self.mask is None:
            super().update()
            return
        chance = stream("growth", self.seed, self.taken)
        weights: dict[str, Tensor] = dict(zip(self.mask, self.weights, strict=True))
        scores = {
            name: self.method.growth(torch.zeros_like(w) if w.grad is None else w.grad, chance)
            for name, w in weights.items()
        }
        if self.method.replaces_step:
            self.mask_gradients()
        else:
            super().update()
        self.set_mask(moved(self.mask, weights, scores, share))
        self.check()

    def count(self) -> None:
        self.taken += 1
        super().count()

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken = state["taken"]


@torch.no_grad()
def moved(mask: Mask, weights: dict[str, Tensor], scores: dict[str, Tensor], share: float) -> Mask:
    """In each layer, a share of the living weights dies, the smallest; as many others come alive.

    A weight that would die and has one of the best scores stays as it is.

    Args:
        mask: What is alive.
        weights: By name, as the mask.
        scores: What dead weights are ranked by, likewise.
        share: Of the living weights; rounded down to whole weights in each layer.
    """
    alive = {name: int(m.sum()) for name, m in mask.items()}
    born = {name: int(share * count) for name, count in alive.items()}
    sizes = {name: weights[name].abs().masked_fill(~m, -1) for name, m in mask.items()}
    stay = best(sizes, {name: alive[name] - born[name] for name in mask})
    others = {name: scores[name].masked_fill(stay[name], -math.inf) for name in mask}
    return stay | best(others, born)
