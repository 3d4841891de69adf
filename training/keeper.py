"""MaskedOptimizer: an optimizer under which dead weights and their state are exactly 0."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparsediag.core.mask import Mask

CHECK_EVERY = 50  # steps between two checks of the dead weights


class MaskedOptimizer:
    """An optimiser under a mask: `step()` takes the place of `optimiser.step()`.

    With masked gradients a dead weight, its momentum and its Adam moments start at 0 and stay
    there by arithmetic. Every `CHECK_EVERY` steps the device adds up what is not 0, and what has
    moved stays so; `assert_masked` checks once more and reads the sum.

    Args:
        net: Its dead weights are set to 0 at once.
        mask: None keeps every weight.
        optimiser: Of the parameters of `net`.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    >>> keeper = MaskedOptimizer(net, Mask({"weight": torch.tensor([[True, False]])}), optimiser)
    >>> net(torch.ones(1, 2)).sum().backward()
    >>> keeper.step()
    >>> net.weight[0, 1].item()
    0.0
    """

    why_eager: ClassVar[str] = ""  # why no step can be replayed, if so

    def __init__(self, net: nn.Module, mask: Mask | None, optimiser: torch.optim.Optimizer) -> None:
        self.net, self.optimiser = net, optimiser
        self.moved: Tensor | float = 0.0
        self.unchecked = 0  # steps since the last check
        self.alive: list[Tensor] = []
        self.change(mask)

    def change(self, mask: Mask | None) -> None:
        """Another mask from here on: what it kills is set to 0, the weight and its state."""
        if mask is not None:
            mask = mask.to(next(self.net.parameters()).device)
            mask.apply_(self.net)
        self.mask = mask
        weights = dict(self.net.named_parameters())
        self.weights = [weights[name] for name in mask or ()]
        alive = mask.values() if mask else ()
        # in the layout of the weights, or they would be multiplied at a fraction of the speed; in
        # the same place as before, where a recorded step finds them
        self.alive = self.alive or [torch.empty_like(w) for w in self.weights]
        for a, m in zip(self.alive, alive, strict=True):
            a.copy_(m)
        self.dead = [1 - a for a in self.alive]
        for w, m in zip(self.weights, alive, strict=True):
            for state in self._states(w):
                state.masked_fill_(~m, 0)

    def sample_gates(self) -> None:
        """Called before every forward pass."""

    def step(self) -> None:
        """Called after every backward pass: one step of the optimiser under the mask."""
        self.update()
        self.count()

    def update(self) -> None:
        """Do what a step computes on the device; `step` does so too."""
        self.mask_gradients()
        self.optimiser.step()

    def count(self) -> None:
        """Count a step, and check the dead weights now and then; `step` does so too."""
        self.unchecked += 1
        if self.unchecked >= CHECK_EVERY:
            self.check()

    @property
    def repeats(self) -> bool:
        """Return whether the next step computes the same on the device as the steps around it."""
        return not self.why_eager

    @contextmanager
    def inference_weights(self) -> Iterator[None]:
        """Inside, the net is the one that is measured and kept."""
        yield

    def state(self) -> dict[str, Any]:
        """Return what there is to remember beside the net, its mask and the optimiser."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""

    def assert_masked(self) -> None:
        """Raise RuntimeError if anything dead has moved since the last report.

        A weight that is not a number is left to the check of the loss.
        """
        if self.unchecked:
            self.check()
        moved, self.moved = float(self.moved), 0.0
        if moved > 0:
            raise RuntimeError(
                f"dead weights or their optimiser state moved, by {moved:.3g} in all"
            )

    report = assert_masked  # its first name

    def mask_gradients(self) -> None:
        """Set the gradient of every dead weight to 0; `step` does so too."""
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
        self.unchecked = 0
        if not self.weights:
            return
        held: list[Tensor] = []
        dead: list[Tensor] = []
        for w, d in zip(self.weights, self.dead, strict=True):
            states = self._states(w)
            held += [w, *states]
            dead += [d] * (1 + len(states))
        stray = torch._foreach_norm(torch._foreach_mul(held, dead), ord=float("inf"))
        self.moved = self.moved + torch.stack(stray).sum()

    def _states(self, weight: Tensor) -> list[Tensor]:
        """Return what the optimiser keeps of every single weight."""
        kept = self.optimiser.state.get(weight, {}).values()
        return [s for s in kept if isinstance(s, Tensor) and s.shape == weight.shape]


Keeper = MaskedOptimizer  # its first name
