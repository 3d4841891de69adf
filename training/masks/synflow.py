"""SynFlow: keep the paths of largest strength, without data (Tanaka et al., NeurIPS 2020)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core import validation
from sparsediag.core.batches import tensors_in
from sparsediag.core.evaluation import deterministic_eval
from sparsediag.core.losses import logits
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import prunable
from training.masks.base import Method

ROUNDING = 1e-9  # share of the largest score, or of the outputs, below which a score is rounding
STRIDE = 61  # every so many scores are a sample, from which the threshold is estimated


@dataclass(frozen=True)
class Synflow(Method):
    """SynFlow: keep the largest w dR/dw, where R = 1^T f(1; |w|) sums the outputs for all ones.

    The weights are pruned in steps of equal ratio, with new scores in every step (algorithm 1): a
    single step empties layers, a hundred leave a path. A branch beside a shortcut may still be
    emptied, since the paths around it remain.

    Of N weights, step s of S prunes down to N - int((1 - density^(s/S)) N), as the authors' code
    does. Only the last step differs from it: it keeps exactly round(density N) weights.

    Attributes:
        steps: Number of pruning steps.
    """

    steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"steps = {self.steps}: need 1 or more")

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """Return the mask after the last step."""
        x, _ = next(iter(problem.batches))
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise ValueError(
                f"the inputs are {validation.describe_shapes(x)}; SynFlow needs one tensor of real "
                "numbers, since it passes ones through the net"
            )
        net, names = AbsoluteNet(problem.net, x.shape[1:]), prunable(problem.net)
        alive = {n: torch.ones_like(net.weights[n], dtype=torch.bool) for n in names}
        size = left = sum(m.numel() for m in alive.values())
        for step in range(1, self.steps + 1):
            keep = size - int((1.0 - self.density ** (step / self.steps)) * size)
            if step == self.steps:
                keep = round(self.density * size)
            scores = net.scores(names)
            if step == 1:
                check(scores, net.strength)
            for name, at in lowest(scores, alive, left - keep).items():
                alive[name].view(-1)[at] = False
                net.weights[name].detach().view(-1)[at] = 0
            left = keep
        return Mask(alive)


class AbsoluteNet:
    """A network with the absolute values of its weights and buffers, in float64.

    Args:
        net: At its initialisation, where the statistics of batch norm are 0 and 1.
        shape: Shape of one input, without the batch.

    Attributes:
        weights: |w| by name.
        strength: Sum of the sizes of the outputs at the last scores.
    """

    strength = 0.0

    def __init__(self, net: nn.Module, shape: torch.Size) -> None:
        self.net = nn.Sequential(net)  # `functional_call` refuses a TorchScript module by itself
        self.state = {
            name: t.detach().abs().double().contiguous()
            if t.is_floating_point()
            else t.detach().clone()
            for name, t in [*net.named_parameters(), *net.named_buffers()]
        }
        self.weights = {name: self.state[name] for name, _ in net.named_parameters()}
        device = next(iter(self.weights.values())).device
        self.ones = torch.ones(1, *shape, dtype=torch.float64, device=device)

    def scores(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Return w dR/dw of these weights."""
        weights = [self.weights[name].requires_grad_() for name in names]
        state = {f"0.{name}": t for name, t in self.state.items()}
        with deterministic_eval(self.net):
            with validation.explain_errors("the net failed on ones in float64"):
                outputs = logits(functional_call(self.net, state, (self.ones,)))
            tensors = [t for t in tensors_in(outputs) if t.is_floating_point()]
            strength = torch.stack([t.sum() for t in tensors]).sum()
            gradients = torch.autograd.grad(strength, weights, materialize_grads=True)
        self.strength = sum(float(t.detach().abs().sum()) for t in tensors)
        rows = zip(names, weights, gradients, strict=True)
        return {name: gradient.mul_(w.detach()) for name, w, gradient in rows}


def check(scores: dict[str, Tensor], strength: float) -> None:
    """Check that scores rank weights by the strength of the paths through them.

    Where that is so, they are not negative, and a layer's scores sum up to the strength of all
    paths but those from biases: R, the sum of the outputs.

    Args:
        scores: The scores of each weight tensor, before anything is pruned.
        strength: Sum of the sizes of the outputs.

    Raises:
        ValueError: If the outputs do not change with the weights, or overflow.
    """
    largest = {name: float(score.abs().max()) for name, score in scores.items()}
    total = max(float(score.abs().sum()) for score in scores.values())
    if not total > ROUNDING * strength or total == math.inf:
        raise ValueError(
            f"SynFlow cannot rank the weights: the outputs for ones sum up to {strength:.3g}, and "
            f"their gradients to {total:.3g}. A net that ends in a softmax has a constant sum: "
            "let it return logits"
        )
    threshold = ROUNDING * max(largest.values())
    zero = [name for name, size in largest.items() if size <= threshold]
    negative = [name for name, score in scores.items() if score.min() < -threshold]
    if zero:
        warnings.warn(
            f"SynFlow scores every weight of {_listed(zero, scores)} as 0, since no path through "
            "them reaches the outputs: they are pruned first, in an arbitrary order. Is the last "
            "batch norm of each block 0 (zero_init_residual)? Initialise it with 1",
            stacklevel=3,
        )
    if negative:
        warnings.warn(
            f"SynFlow has negative scores in {_listed(negative, scores)}, so they are no strengths "
            "of paths: the outputs fall with some |w|, as after a layer norm or log-softmax",
            stacklevel=3,
        )


def _listed(names: list[str], among: dict[str, Tensor]) -> str:
    return f"{', '.join(names[:3])}{', ...' * (len(names) > 3)} ({len(names)} of {len(among)})"


def lowest(scores: dict[str, Tensor], alive: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return the indices of the `count` lowest scores of live weights; of equal ones, the later.

    Only scores below a threshold are sorted, which is estimated from a sample.
    """
    if not count:
        return {}
    sample = torch.cat(
        [s.flatten()[::STRIDE][alive[name].flatten()[::STRIDE]] for name, s in scores.items()]
    )
    rank = int(1.1 * len(sample) * count / sum(int(m.sum()) for m in alive.values())) + 30
    highest = torch.full((), torch.inf, dtype=sample.dtype, device=sample.device)
    threshold = sample.kthvalue(rank).values if rank <= len(sample) else highest
    low = _at_most(scores, alive, threshold)
    if sum(map(len, low.values())) < count:
        low = _at_most(scores, alive, highest)
    values = torch.cat([scores[name].flatten()[at] for name, at in low.items()])
    chosen = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    chosen[values.flip(0).argsort(stable=True)[:count]] = True
    parts = chosen.flip(0).split([len(at) for at in low.values()])
    return {name: at[part] for (name, at), part in zip(low.items(), parts, strict=True)}


def _at_most(
    scores: dict[str, Tensor], alive: dict[str, Tensor], threshold: Tensor
) -> dict[str, Tensor]:
    """Return the indices of live weights whose scores are at most a threshold."""
    return {
        name: ((s <= threshold) & alive[name]).flatten().nonzero().squeeze(1)
        for name, s in scores.items()
    }
