"""Invariant: dead weights and their optimiser state are exactly 0, at every step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sparsediag.mask import Mask


class Invariant:
    """Masks the gradients, and checks after every step that nothing dead has moved.

    With masked gradients a dead weight, its momentum and its Adam moments start at 0 and stay
    there by arithmetic. The check adds up what is not 0 on the device and is read once an epoch.
    """

    def __init__(self, net: nn.Module, mask: Mask | None, optimiser: torch.optim.Optimizer) -> None:
        weights = dict(net.named_parameters())
        mask_of: Mapping[str, Tensor] = mask or {}
        self.optimiser = optimiser
        self.weights = [weights[name] for name in mask_of]
        self.alive = [m.to(weights[name].dtype) for name, m in mask_of.items()]
        self.dead = [1 - alive for alive in self.alive]
        self.moved: Tensor | float = 0.0

    def mask_gradients(self) -> None:
        """Set the gradient of every dead weight to 0."""
        pairs = [
            (w.grad, alive)
            for w, alive in zip(self.weights, self.alive, strict=True)
            if w.grad is not None
        ]
        if pairs:
            gradients, alive = zip(*pairs, strict=True)
            torch._foreach_mul_(gradients, alive)

    @torch.no_grad()
    def check(self) -> None:
        """Add up the dead weights and optimiser states that are not 0."""
        if not self.weights:
            return
        held: list[Tensor] = []
        dead: list[Tensor] = []
        for w, d in zip(self.weights, self.dead, strict=True):
            states = [s for s in self.optimiser.state[w].values() if _alike(s, w)]
            held += [w, *states]
            dead += [d] * (1 + len(states))
        stray = torch._foreach_norm(torch._foreach_mul(held, dead), ord=float("inf"))
        self.moved = self.moved + torch.stack(stray).sum()

    def report(self) -> None:
        """Raise RuntimeError if anything dead has moved since the last report.

        A weight that is not a number is left to the check of the loss.
        """
        moved, self.moved = float(self.moved), 0.0
        if moved > 0:
            raise RuntimeError(
                f"dead weights or their optimiser state moved, by {moved:.3g} in all"
            )


def _alike(state: object, weight: Tensor) -> bool:
    return isinstance(state, Tensor) and state.shape == weight.shape
