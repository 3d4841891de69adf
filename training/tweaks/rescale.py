"""Rescale: a learned scale for every tensor of the initialisation (LRsI; ToST, section 2.3).

It is GradInit (Zhu et al., NeurIPS 2021) under a mask: min_s L(s w - eta g / |g|) / eta such that
|g| <= gamma, where g is the gradient at s w; dead weights have no part in g, nor in the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sparsediag.core.evaluation import deterministic_eval
from sparsediag.core.mask import Mask
from sparsediag.models.ghost import without_ghosts
from training.tweaks.base import TrainingContext, Tweak

BETAS, EPS = (0.9, 0.999), 1e-8
Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Rescale(Tweak):
    """LRsI: scales that make the first step of the training lower the loss most.

    Attributes:
        steps: Steps of Adam on the scales; the authors' README has 180.
        lr: Its learning rate.
        eta: Length of the step that is looked ahead.
        gamma: The largest gradient norm; above it the norm itself is lowered.
        min_scale: The smallest scale of a weight; that of a bias is 0.
        masked: Learn the scales of the masked net; False for those of the dense one.
        ghosts: Learn them with ghosts that fade in place, not for the plain net that is left.
    """

    steps: int = 180
    lr: float = 0.01
    eta: float = 0.1
    gamma: float = 1.0
    min_scale: float = 0.01
    masked: bool = True
    ghosts: bool = False

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps = {self.steps}: need 0 or more")
        for key in ("lr", "eta", "gamma"):
            if not getattr(self, key) > 0:
                raise ValueError(f"{key} = {getattr(self, key)}: need a positive number")
        if not 0 <= self.min_scale < 1:
            raise ValueError(f"min_scale = {self.min_scale}: need a scale in [0, 1)")

    def phase(self, epoch: int, epochs: int) -> None:
        """Only the first weights are scaled."""

    def start(self, scene: TrainingContext) -> dict[str, float]:
        """Scale the weights of a new net, in place; returns the scales by name."""
        if scene.resumed:
            return {}
        scaling = Scaling(self, scene.net, scene.mask if self.masked else None)
        with nullcontext() if self.ghosts or scene.stay else without_ghosts(scene.net):
            for _ in range(self.steps):
                scaling.step(scene.batches)
        scaling.apply_()
        return dict(zip(scaling.start, scaling.scales.tolist(), strict=True))


class Scaling:
    """The search for the scales of a net.

    Args:
        tweak: Its constants.
        net: Its modes and buffers are left as they are.
        mask: The weights that count.

    Attributes:
        start: The tensors that are scaled, by name: all but those that are 0.
        still: Those that are 0; they have a part in the gradient and in the step.
        scales: One for each of them, (tensors,).
    """

    def __init__(self, tweak: Rescale, net: nn.Module, mask: Mask | None) -> None:
        self.tweak, self.net, self.mask = tweak, net, mask
        weights = {n: p.detach().clone() for n, p in net.named_parameters()}
        for name, m in (mask or {}).items():
            weights[name].masked_fill_(~m.to(weights[name].device), 0)
        self.start = {n: w for n, w in weights.items() if bool(w.any())}
        self.still = {n: w.requires_grad_() for n, w in weights.items() if n not in self.start}
        like = next(iter(self.start.values()))
        self.scales = like.new_ones(len(self.start))
        self.least = like.new_tensor(
            [0.0 if n.endswith("bias") else tweak.min_scale for n in self.start]
        )
        self.means = {kind: torch.zeros_like(self.scales) for kind in ("norm", "loss")}
        self.counts = dict.fromkeys(self.means, 0)
        self.squares = torch.zeros_like(self.scales)

    def step(self, batches: Batches) -> None:
        """Lower the gradient's norm where it is too large, else the loss one step ahead."""
        (x, y), (more, labels) = next(batches), next(batches)
        x, y = torch.cat([x, more]), torch.cat([y, labels])
        scales = self.scales.clone().requires_grad_()
        weights = self.scaled(scales)
        gradient, norm = self.gradient(weights, x, y)
        if not norm:
            return
        if norm > self.tweak.gamma:
            kind, value = "norm", norm
        else:
            kind = "loss"
            half, (fresh, labels) = len(x) // 2, next(batches)
            x, y = torch.cat([x[:half], fresh]), torch.cat([y[:half], labels])
            value = self.loss(self.ahead(weights, gradient, norm), x, y) / self.tweak.eta
        (slope,) = torch.autograd.grad(value, scales)
        self.adam(kind, slope.clamp(-1, 1))

    def scaled(self, scales: Tensor) -> dict[str, Tensor]:
        """All tensors, at these scales; those that are 0 stay so."""
        at = {name: s * w for s, (name, w) in zip(scales, self.start.items(), strict=True)}
        return at | self.still

    def gradient(
        self, weights: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The gradient by the live weights, differentiable, and its norm."""
        slopes = torch.autograd.grad(
            self.loss(weights, x, y),
            list(weights.values()),
            create_graph=True,
            materialize_grads=True,
        )
        found = dict(zip(weights, slopes, strict=True))
        for name, m in (self.mask or {}).items():
            found[name] = found[name] * m.to(found[name])
        return found, torch.stack([g.square().sum() for g in found.values()]).sum().sqrt()

    def ahead(
        self, weights: dict[str, Tensor], gradient: dict[str, Tensor], norm: Tensor
    ) -> dict[str, Tensor]:
        """The weights after a step of length eta, through which no gradient flows."""
        step = self.tweak.eta / norm.detach()
        return {name: w - step * gradient[name].detach() for name, w in weights.items()}

    def loss(self, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        """The cross-entropy with batch statistics."""
        buffers = {n: b.clone() for n, b in self.net.named_buffers()}
        with deterministic_eval(self.net, batch_norm="train"):
            return F.cross_entropy(functional_call(self.net, weights | buffers, (x,)), y)

    def adam(self, kind: str, slope: Tensor) -> None:
        """Adam with a mean for each kind of step and squares in common."""
        self.counts[kind] += 1
        (first, second), total = BETAS, sum(self.counts.values())
        mean = self.means[kind].lerp_(slope, 1 - first) / (1 - first ** self.counts[kind])
        square = self.squares.lerp_(slope.square(), 1 - second) / (1 - second**total)
        moved = self.scales - self.tweak.lr * mean / (square.sqrt() + EPS)
        self.scales = torch.maximum(moved, self.least)

    @torch.no_grad()
    def apply_(self) -> None:
        """Scale the net's tensors, dead weights of a mask too."""
        weights = dict(self.net.named_parameters())
        for s, name in zip(self.scales, self.start, strict=True):
            weights[name].mul_(s)
