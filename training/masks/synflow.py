"""SynFlow: keep the paths of largest strength, without data (Tanaka et al., NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.evaluation import deterministic_eval
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import prunable
from training.masks.base import Method

SAMPLED = 61  # one score in so many is looked at to guess which are low


@dataclass(frozen=True)
class Synflow(Method):
    """R = 1^T f(1; |w|), the sum of the outputs for an image of ones; the largest w dR/dw stay.

    The cut is made in steps of equal ratio, each with scores of the net that the last one left:
    one step empties layers, a hundred leave a path. A branch beside a shortcut may still be
    emptied, since the paths around it remain.

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
        flow, names = Flow(problem.net, x.shape[1:]), prunable(problem.net)
        alive = {n: torch.ones_like(flow.weights[n], dtype=torch.bool) for n in names}
        size = left = sum(m.numel() for m in alive.values())
        for step in range(1, self.steps + 1):
            keep = round(self.density ** (step / self.steps) * size)
            for name, at in weakest(flow.scores(names), alive, left - keep).items():
                alive[name].view(-1)[at] = False
                flow.weights[name].detach().view(-1)[at] = 0
            left = keep
        return Mask(alive)


class Flow:
    """A net with the absolute values of its weights and buffers, in float64.

    Args:
        net: At its initialisation, where batch norm's statistics are 0 and 1.
        size: Of one input, without the batch.

    Attributes:
        weights: |w| by name.
    """

    def __init__(self, net: nn.Module, size: torch.Size) -> None:
        self.net = net
        self.state = {
            name: t.detach().abs().double() if t.is_floating_point() else t
            for name, t in net.state_dict().items()
        }
        self.weights = {name: self.state[name] for name, _ in net.named_parameters()}
        device = next(iter(self.weights.values())).device
        self.ones = torch.ones(1, *size, dtype=torch.float64, device=device)

    def scores(self, names: Sequence[str]) -> dict[str, Tensor]:
        """W dR/dw of these weights."""
        leaves = [self.weights[name].requires_grad_() for name in names]
        with deterministic_eval(self.net), torch.enable_grad():
            strength = functional_call(self.net, self.state, (self.ones,)).sum()
            slopes = torch.autograd.grad(strength, leaves, materialize_grads=True)
        rows = zip(names, leaves, slopes, strict=True)
        return {name: slope.mul_(w.detach()) for name, w, slope in rows}


def scores(net: nn.Module, size: torch.Size) -> dict[str, Tensor]:
    """W dR/dw of all weights of a net as it is, in float64."""
    return Flow(net, size).scores([name for name, _ in net.named_parameters()])


def weakest(scores: dict[str, Tensor], alive: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Places of the `count` lowest scores of living weights; of equal ones, the later.

    A guess from a sample spares the rest of the scores from being sorted.
    """
    if not count:
        return {}
    few = [s.flatten()[::SAMPLED][alive[n].flatten()[::SAMPLED]] for n, s in scores.items()]
    sample, left = torch.cat(few), sum(int(m.sum()) for m in alive.values())
    rank = int(1.1 * len(sample) * count / left) + 30
    most = torch.full((), torch.inf, dtype=sample.dtype, device=sample.device)
    low = _up_to(scores, alive, sample.kthvalue(rank).values if rank <= len(sample) else most)
    if sum(map(len, low.values())) < count:
        low = _up_to(scores, alive, most)
    values = torch.cat([scores[name].flatten()[at] for name, at in low.items()])
    chosen = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    chosen[values.flip(0).argsort(stable=True)[:count]] = True
    parts = chosen.flip(0).split([len(at) for at in low.values()])
    return {name: at[part] for (name, at), part in zip(low.items(), parts, strict=True)}


def _up_to(scores: dict[str, Tensor], alive: dict[str, Tensor], bound: Tensor) -> dict[str, Tensor]:
    """Places of the living with a score up to a bound."""
    return {
        name: ((s <= bound) & alive[name]).flatten().nonzero().squeeze(1)
        for name, s in scores.items()
    }
