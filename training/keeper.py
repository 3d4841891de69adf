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
    """An optimiser under a mask: call `step()` instead of `optimiser.step()`.

    With masked gradients, a dead weight, its momentum and its Adam moments start at 0 and stay 0 by
    arithmetic. Every `CHECK_EVERY` steps the device sums those that are not 0; `assert_masked`
    checks once more and reads the sum.

    Args:
        net: The network; its dead weights are set to 0 at once.
        mask: The live weights; None keeps every weight.
        optimiser: An optimiser of the parameters of `net`.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    >>> masked = MaskedOptimizer(net, Mask({"weight": torch.tensor([[True, False]])}), optimiser)
    >>> net(torch.ones(1, 2)).sum().backward()
    >>> masked.step()
    >>> net.weight[0, 1].item()
    0.0
    """

    why_eager: ClassVar[str] = ""  # the reason why no step can be replayed, if there is one

    def __init__(self, net: nn.Module, mask: Mask | None, optimiser: torch.optim.Optimizer) -> None:
        self.net, self.optimiser = net, optimiser
        self.violation: Tensor | float = 0.0  # sum of the dead weights and states that are not 0
        self.unchecked = 0  # steps since the last check
        self.alive: list[Tensor] = []
        self.set_mask(mask)

    def set_mask(self, mask: Mask | None) -> None:
        """Set another mask; weights that it kills become 0, and their optimiser state too."""
        if mask is not None:
            mask = mask.to(next(self.net.parameters()).device)
            mask.apply_(self.net)
        self.mask = mask
        weights = dict(self.net.named_parameters())
        self.weights = [weights[name] for name in mask or ()]
        alive = mask.values() if mask else ()
        # in the memory format of the weights, or multiplying them is many times slower; and in the
        # same memory as before, where a recorded step reads them
        self.alive = self.alive or [torch.empty_like(w) for w in self.weights]
        for a, m in zip(self.alive, alive, strict=True):
            a.copy_(m)
        self.dead = [1 - a for a in self.alive]
        for w, m in zip(self.weights, alive, strict=True):
            for state in self._states(w):
                state.masked_fill_(~m, 0)

    def sample_gates(self) -> None:
        """Prepare the weights for a forward pass; called before every one."""

    def step(self) -> None:
        """Take a step of the optimiser under the mask; call it after every backward pass."""
        self.update()
        self.count()

    def update(self) -> None:
        """Do the part of `step` that the device computes."""
        self.mask_gradients()
        self.optimiser.step()

    def count(self) -> None:
        """Do the other part of `step`: count it, and check the dead weights now and then."""
        self.unchecked += 1
        if self.unchecked >= CHECK_EVERY:
            self.check()

    @property
    def repeats(self) -> bool:
        """Return whether the next step computes the same on the device as the steps around it."""
        return not self.why_eager

    @contextmanager
    def inference_weights(self) -> Iterator[None]:
        """Inside, the network has the weights to evaluate and to save."""
        yield

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save beside the network, its mask and the optimiser."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def assert_masked(self) -> None:
        """Raise RuntimeError if a dead weight has moved since the last call.

        A weight that is nan is left to the check of the loss.
        """
        if self.unchecked:
            self.check()
        violation, self.violation = float(self.violation), 0.0
        if violation > 0:
            raise RuntimeError(
                f"dead weights or their optimiser state moved, by {violation:.3g} in total"
            )

    report = assert_masked  # its first name

    def mask_gradients(self) -> None:
        """Set the gradients of dead weights to 0; `step` does so too."""
        pairs = zip(self.weights, self.alive, strict=True)
        masked = [(w.grad, alive) for w, alive in pairs if w.grad is not None]
        if masked:
            gradients, alive = zip(*masked, strict=True)
            torch._foreach_mul_(gradients, alive)

    @torch.no_grad()
    def check(self) -> None:
        """Add up the dead weights and optimiser states that are not 0."""
        self.unchecked = 0
        if not self.weights:
            return
        tensors: list[Tensor] = []
        dead: list[Tensor] = []
        for w, d in zip(self.weights, self.dead, strict=True):
            states = self._states(w)
            tensors += [w, *states]
            dead += [d] * (1 + len(states))
        largest = torch._foreach_norm(torch._foreach_mul(tensors, dead), ord=float("inf"))
        self.violation = self.violation + torch.stack(largest).sum()

    def _states(self, weight: Tensor) -> list[Tensor]:
        """Return the optimiser's state of a weight, elementwise tensors only."""
        state = self.optimiser.state.get(weight, {}).values()
        return [s for s in state if isinstance(s, Tensor) and s.shape == weight.shape]


Keeper = MaskedOptimizer  # its first name
