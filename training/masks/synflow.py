"""SynFlow: keep the paths of largest strength, without data (Tanaka et al., NeurIPS 2020)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sparsediag.checkpoint import Checkpoint
from sparsediag.mask import Mask, prunable
from sparsediag.modes import exactly
from sparsediag.problem import Problem
from training.masks.method import Method


@dataclass(frozen=True)
class Synflow(Method):
    """R = 1^T f(1; |w|), the sum of the outputs for an image of ones; the largest w dR/dw stay.

    The cut is made in steps of equal ratio, each with scores of the net that the last one left:
    one step empties layers, a hundred do not.

    Attributes:
        steps: Number of cuts.
    """

    steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"steps = {self.steps}: need 1 or more")

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """The mask after the last step."""
        x, _ = next(iter(problem.batches))
        size = x.shape[1:]
        names, mask = prunable(problem.net), None
        for step in range(1, self.steps + 1):
            found = scores(problem.net, size, mask)
            mask = Mask.top({n: found[n] for n in names}, self.density ** (step / self.steps))
        assert mask is not None
        return mask


def scores(net: nn.Module, size: torch.Size, mask: Mask | None = None) -> dict[str, Tensor]:
    """W dR/dw of every weight in float64, with dead weights at 0, and -1 for them.

    Args:
        net: At its initialisation, where batch norm's statistics are 0 and 1.
        size: Of one input.
        mask: What earlier steps left.
    """
    positive = {
        name: t.detach().abs().double() if t.is_floating_point() else t
        for name, t in net.state_dict().items()
    }
    for name, alive in (mask or {}).items():
        positive[name] = positive[name] * alive.to(positive[name].device)
    leaves = {n: positive[n].requires_grad_() for n, _ in net.named_parameters()}
    twin = copy.deepcopy(net).double()
    ones = torch.ones(1, *size, dtype=torch.float64, device=next(iter(leaves.values())).device)
    with exactly(twin), torch.enable_grad():
        strength = functional_call(twin, positive, (ones,)).sum()
        slopes = torch.autograd.grad(strength, list(leaves.values()), allow_unused=True)
    found = {
        name: torch.zeros_like(w) if slope is None else (w * slope).detach()
        for (name, w), slope in zip(leaves.items(), slopes, strict=True)
    }
    for name, alive in (mask or {}).items():
        found[name][~alive.to(found[name].device)] = -1
    return found
