"""SynFlow: keep the paths of largest strength, without data (Tanaka et al., NeurIPS 2020)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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
MARGIN = 1.05  # of the guess of a step's threshold


@dataclass(frozen=True)
class Synflow(Method):
    """SynFlow: keep the largest w dR/dw, where R = 1^T f(1; |w|) sums the outputs for all ones.

    The weights are pruned in steps of equal ratio, with new scores in every step (algorithm 1): a
    single step empties layers, a hundred leave a path. A branch beside a shortcut may still be
    emptied, since the paths around it remain.

    Of N weights, step s of S prunes down to N - int((1 - density^(s/S)) N), as the authors' code
    does. Only the last step differs from it: it keeps exactly round(density N) weights.

    Scores are computed in float64. In float32 they would have six digits, but steps build on each
    other: of a ResNet-18 with 1 % of its weights, it would keep others in place of every twelfth.

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
        check(net.scores(names), net.strength)
        threshold, bound = 0.0, math.inf
        for step in range(1, self.steps + 1):
            keep = size - int((1.0 - self.density ** (step / self.steps)) * size)
            if step == self.steps:
                keep = round(self.density * size)
            if keep == left:
                continue
            low, score = lowest(net, alive, left - keep, bound)
            for name, at in low.items():
                alive[name].view(-1).index_fill_(0, at, False)
                net.weights[name].view(-1).index_fill_(0, at, 0)
            # thresholds of successive steps have nearly equal ratios
            bound = MARGIN * score * (score / threshold if threshold else 1)
            left, threshold = keep, score
        return Mask(alive)


class AbsoluteNet:
    """A net with the sizes of its weights, in evaluation mode, on ones, in float64.

    Args:
        net: The net.
        shape: Shape of one input, without the batch.

    Attributes:
        weights: |w| by name.
        strength: Sum of the sizes of the outputs at the last scores.
    """

    strength = 0.0

    def __init__(self, net: nn.Module, shape: torch.Size) -> None:
        self.net = nn.Sequential(net)  # `functional_call` refuses a TorchScript module by itself
        self.parameters = [name for name, _ in net.named_parameters()]
        tensors = {n: t.detach() for n, t in [*net.named_parameters(), *net.named_buffers()]}
        self.state = {
            n: t.double().abs().contiguous() if t.is_floating_point() else t.clone()
            for n, t in tensors.items()
        }
        self.weights = {name: self.state[name] for name in self.parameters}
        self.ones = torch.ones(1, *shape).to(self.weights[self.parameters[0]])

    def scores(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Return w dR/dw of these weights."""
        found: dict[str, Tensor] = {}
        self.visit_scores(names, lambda name, score: found.update({name: score.clone()}))
        return {name: found[name] for name in names}

    def visit_scores(self, names: Sequence[str], visit: Callable[[str, Tensor], None]) -> None:
        """Call `visit(name, w dR/dw)` for each of these weights as soon as its gradient is known.

        Only one gradient exists at a time; the memory of the score is used again after the call.
        """
        unseen = set(names)
        memory = self.ones.new_empty(max(self.weights[name].numel() for name in names))

        def with_visit(name: str) -> Tensor:
            w = self.weights[name]

            def score(gradient: Tensor) -> None:
                unseen.discard(name)
                visit(name, torch.mul(gradient, w, out=memory[: w.numel()].view_as(w)))

            hooked: Tensor = _OnGradient.apply(w.detach().requires_grad_(), score)
            return hooked

        state = self.state | {name: with_visit(name) for name in names}
        with deterministic_eval(self.net):
            with validation.explain_errors(f"the net failed on ones in {self.ones.dtype}"):
                outputs = logits(
                    functional_call(
                        self.net, {f"0.{name}": t for name, t in state.items()}, (self.ones,)
                    )
                )
            tensors = [t for t in tensors_in(outputs) if t.is_floating_point()]
            self.strength = sum(float(t.detach().abs().sum()) for t in tensors)
            total = torch.stack([t.sum() for t in tensors]).sum()
            if total.requires_grad:
                total.backward()
        for name in unseen:  # no path from them to the outputs
            visit(name, torch.zeros_like(self.weights[name]))


class _OnGradient(torch.autograd.Function):
    """A view of a tensor whose gradient goes to a function and no further."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, function: Callable[[Tensor], None]) -> Tensor:
        ctx.function = function
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        ctx.function(gradient)
        return None, None


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


def lowest(
    net: AbsoluteNet, alive: dict[str, Tensor], count: int, bound: float
) -> tuple[dict[str, Tensor], float]:
    """Return the indices of the `count` lowest scores of live weights, and the largest of these.

    Of equal scores the later ones are taken.

    Args:
        net: The net.
        alive: The live weights.
        count: Number of weights.
        bound: A guess of a number that at least `count` scores do not exceed. Only these are kept
            and ranked; if there are fewer, all scores are computed again.
    """
    low, values = dict[str, Tensor](), dict[str, Tensor]()

    def select(name: str, score: Tensor) -> None:
        low[name] = _at_most(score.flatten(), bound, alive[name].flatten())
        values[name] = score.flatten()[low[name]]

    net.visit_scores(list(alive), select)
    if sum(map(len, low.values())) < count:
        bound = math.inf
        net.visit_scores(list(alive), select)
    ranked = torch.cat([values[name] for name in alive]).cpu().numpy()
    if len(ranked) < count:
        raise ValueError("SynFlow cannot rank the weights: their scores are not finite numbers")
    threshold = np.partition(ranked, count - 1)[count - 1]
    chosen = ranked < threshold
    equal = np.flatnonzero(ranked == threshold)
    chosen[equal[len(equal) - (count - np.count_nonzero(chosen)) :]] = True
    parts = torch.from_numpy(chosen).split([len(low[name]) for name in alive])
    device = net.ones.device
    pairs = zip(alive, parts, strict=True)
    return {name: low[name][part.to(device)] for name, part in pairs}, float(threshold)


def _at_most(scores: Tensor, bound: float, alive: Tensor) -> Tensor:
    """Return the indices of live weights whose scores are at most a bound."""
    if scores.device.type == "cpu":  # NumPy takes a quarter of torch's time
        at = np.flatnonzero((scores.numpy() <= bound) & alive.numpy())
        return torch.from_numpy(at)
    return ((scores <= bound) & alive).nonzero().squeeze(1)
