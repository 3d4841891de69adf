"""Learned masks: gates that open by chances which the net trains along (the pruning pipeline).

Every weight has a chance M to be there. A forward pass sees w = theta * b with b ~ Bernoulli(M);
the loss gains lambda_binary * sum M (1 - M) + lambda_l1 * sum M. The gradient goes straight through
the gates: dL/dM = theta * dL/dw, and dL/dtheta = b * dL/dw. At the end theta * M is pruned by
magnitude.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import prunable
from sparsediag.core.rng import stream
from training.keeper import MaskedOptimizer
from training.masks.base import Method
from training.masks.magnitude import largest
from training.prerequisite import Prerequisite


@dataclass(frozen=True)
class Learned(Method):
    """The largest |theta M| after a training with gates; at density 1 it is that training itself.

    The regulariser alone pushes M away from 1/2 + lambda_l1 / (2 lambda_binary): smaller M go to 0.

    Attributes:
        lambda_binary: The weight of sum M (1 - M), which pushes every M to 0 or 1.
        lambda_l1: The weight of sum M, which pushes every M to 0.
    """

    lambda_binary: float = 1e-6
    lambda_l1: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("lambda_binary", "lambda_l1"):
            if not getattr(self, key) >= 0:
                raise ValueError(f"{key} = {getattr(self, key)}: need 0 or more")

    def origin(self, rewind: float) -> Prerequisite:
        """Return the training with gates."""
        return Prerequisite(replace(self, density=1.0))

    def before(self) -> tuple[Prerequisite, ...]:
        """Return the training with gates, before a cut."""
        return () if self.density == 1 else (self.origin(1.0),)

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask | None:
        """The largest |theta M|, or no mask where gates are to be trained."""
        return largest(problem.net, trained[0], self.density) if trained else None

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
        """Gates where there is no mask yet."""
        if mask is not None:
            return MaskedOptimizer(net, mask, optimiser)
        return Gates(net, optimiser, spread=self.lambda_binary, size=self.lambda_l1, seed=seed)


class Gates(MaskedOptimizer):
    """An optimiser of the weights and of their chances.

    Args:
        net: Its prunable weights get gates.
        optimiser: Of the parameters of `net`; it gets the chances as a second group, without decay.
        spread: The weight of sum M (1 - M).
        size: The weight of sum M.
        seed: Seed of the gates.

    Attributes:
        chances: M by name, half at first.
    """

    why_eager = "every step draws new gates"

    def __init__(
        self,
        net: nn.Module,
        optimiser: torch.optim.Optimizer,
        *,
        spread: float,
        size: float,
        seed: int,
    ) -> None:
        super().__init__(net, None, optimiser)
        self.spread, self.size, self.seed, self.taken = spread, size, seed, 0
        weights = dict(net.named_parameters())
        self.gated: list[Tensor] = [weights[name] for name in prunable(net)]
        self.chances: dict[str, Tensor] = {
            name: torch.full_like(weights[name], 0.5).requires_grad_() for name in prunable(net)
        }
        self.theta: list[Tensor] = []
        self.open: list[Tensor] = []
        group = {"params": list(self.chances.values()), "weight_decay": 0.0}
        optimiser.add_param_group(group)

    @torch.no_grad()
    def sample_gates(self) -> None:
        """Open each gate with its chance."""
        device = self.gated[0].device
        chance = torch.Generator(device).manual_seed(
            stream("gates", self.seed, self.taken).initial_seed()
        )
        self.theta, self.open = [w.clone() for w in self.gated], []
        for w, m in zip(self.gated, self.chances.values(), strict=True):
            gates = torch.rand(w.shape, generator=chance, device=device, dtype=w.dtype) < m
            self.open.append(gates)
            w.masked_fill_(~gates, 0)

    @torch.no_grad()
    def update(self) -> None:
        """A step of theta and of M, which stays in [0, 1]."""
        rows = zip(self.gated, self.theta, self.chances.values(), self.open, strict=True)
        for w, theta, m, gates in rows:
            slope = torch.zeros_like(w) if w.grad is None else w.grad
            m.grad = slope * theta + self.spread * (1 - 2 * m) + self.size
            w.grad = slope * gates
            w.copy_(theta)
        self.optimiser.step()
        for m in self.chances.values():
            m.clamp_(0, 1)

    def count(self) -> None:
        self.taken += 1

    @contextmanager
    def inference_weights(self) -> Iterator[None]:
        """Inside, the weights are what is expected of them: theta * M."""
        self.theta = [w.detach().clone() for w in self.gated]
        with torch.no_grad():
            for w, m in zip(self.gated, self.chances.values(), strict=True):
                w.mul_(m)
        try:
            yield
        finally:
            with torch.no_grad():
                self._set(self.theta)

    def state_dict(self) -> dict[str, Any]:
        chances = [m.detach() for m in self.chances.values()]
        return {"taken": self.taken, "theta": self.theta, "chances": chances}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken = state["taken"]
        self._set(state["theta"])
        for m, kept in zip(self.chances.values(), state["chances"], strict=True):
            m.copy_(kept)

    def _set(self, theta: list[Tensor]) -> None:
        for w, kept in zip(self.gated, theta, strict=True):
            w.copy_(kept)
