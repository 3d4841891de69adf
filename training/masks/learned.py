"""Learned masks: gates whose probabilities are trained with the network (the pruning pipeline).

Every weight theta has a gate that is open with probability M. A forward pass sees w = theta * b
with b ~ Bernoulli(M); the loss gains lambda_binary * sum M (1 - M) + lambda_l1 * sum M. The
gradient goes straight through the gates: dL/dM = theta * dL/dw, and dL/dtheta = b * dL/dw. After
the training theta * M is pruned by magnitude.
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
from training.keeper import Closure, MaskedOptimizer
from training.masks.base import Method
from training.masks.magnitude import largest_weights
from training.prerequisite import Prerequisite


@dataclass(frozen=True)
class Learned(Method):
    """Keep the largest |theta M| after a training with gates; at density 1, train with gates.

    The regulariser alone pushes M away from 1/2 + lambda_l1 / (2 lambda_binary): smaller M go to 0.

    Attributes:
        lambda_binary: Weight of sum M (1 - M) in the loss, which pushes every M to 0 or 1.
        lambda_l1: Weight of sum M in the loss, which pushes every M to 0.
    """

    lambda_binary: float = 1e-6
    lambda_l1: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("lambda_binary", "lambda_l1"):
            if not getattr(self, key) >= 0:
                raise ValueError(f"{key} = {getattr(self, key)}: need 0 or more")

    def rewind_source(self, rewind: float) -> Prerequisite:
        """Return the training with gates."""
        return Prerequisite(replace(self, density=1.0))

    def before(self) -> tuple[Prerequisite, ...]:
        """Return the training with gates, if this run prunes."""
        return () if self.density == 1 else (self.rewind_source(1.0),)

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask | None:
        """Keep the largest |theta M|; no mask for the training with gates."""
        return largest_weights(problem.net, trained[0], self.density) if trained else None

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
        """Return an optimizer with gates if there is no mask yet."""
        if mask is not None:
            return MaskedOptimizer(net, mask, optimizer)
        return GatedOptimizer(net, optimizer, method=self, seed=seed)


class GatedOptimizer(MaskedOptimizer):
    """An optimizer of the weights theta and of the probabilities M of their gates.

    Args:
        net: The network; its prunable weights get gates.
        optimiser: An optimizer of the parameters of `net`; the probabilities are added as a second
            group, without weight decay.
        method: The weights of the regulariser.
        seed: Seed of the gates.

    Attributes:
        gated: The weights with gates.
        probabilities: M by name, 1/2 at first.
        theta: Values of the weights while gates are applied.
        gates: The gates b of the last forward pass.
    """

    why_eager = "every step draws new gates"

    def __init__(
        self, net: nn.Module, optimiser: torch.optim.Optimizer, *, method: Learned, seed: int
    ) -> None:
        super().__init__(net, None, optimiser)
        self.method, self.seed, self.steps_taken = method, seed, 0
        self.gated = [net.get_parameter(name) for name in prunable(net)]
        self.probabilities: dict[str, Tensor] = {
            name: torch.full_like(w, 0.5).requires_grad_()
            for name, w in zip(prunable(net), self.gated, strict=True)
        }
        self.theta: list[Tensor] = []
        self.gates: list[Tensor] = []
        group = {"params": list(self.probabilities.values()), "weight_decay": 0.0}
        optimiser.add_param_group(group)

    @torch.no_grad()
    def sample_gates(self) -> None:
        """Draw the gates b ~ Bernoulli(M) and set the weights to theta * b."""
        device = self.gated[0].device
        seed = stream("gates", self.seed, self.steps_taken).initial_seed()
        generator = torch.Generator(device).manual_seed(seed)
        self.theta, self.gates = [w.clone() for w in self.gated], []
        for w, m in zip(self.gated, self.probabilities.values(), strict=True):
            b = torch.rand(w.shape, generator=generator, device=device, dtype=w.dtype) < m
            self.gates.append(b)
            w.masked_fill_(~b, 0)

    @torch.no_grad()
    def update(self, closure: Closure | None = None) -> Any:
        """Take a step of theta and of M, and clamp M to [0, 1]."""
        if closure is not None:
            raise ValueError("the gates are drawn once for a step, so it takes no closure")
        rows = zip(self.gated, self.theta, self.probabilities.values(), self.gates, strict=True)
        binary, l1 = self.method.lambda_binary, self.method.lambda_l1
        for w, theta, m, b in rows:
            gradient = torch.zeros_like(w) if w.grad is None else w.grad
            m.grad = gradient * theta + binary * (1 - 2 * m) + l1
            w.grad = gradient * b
            w.copy_(theta)
        self.optimiser.step()
        for m in self.probabilities.values():
            m.clamp_(0, 1)

    def count(self) -> None:
        self.steps_taken += 1

    @contextmanager
    def inference_weights(self) -> Iterator[None]:
        """Inside, the weights are the expected ones: theta * M."""
        self.theta = [w.detach().clone() for w in self.gated]
        with torch.no_grad():
            for w, m in zip(self.gated, self.probabilities.values(), strict=True):
                w.mul_(m)
        try:
            yield
        finally:
            self._set_weights(self.theta)

    def state_dict(self) -> dict[str, Any]:
        chances = [m.detach() for m in self.probabilities.values()]
        return {"taken": self.steps_taken, "theta": self.theta, "chances": chances}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps_taken = state["taken"]
        self._set_weights(state["theta"])
        for m, saved in zip(self.probabilities.values(), state["chances"], strict=True):
            m.copy_(saved)

    @torch.no_grad()
    def _set_weights(self, theta: list[Tensor]) -> None:
        for w, values in zip(self.gated, theta, strict=True):
            w.copy_(values)
