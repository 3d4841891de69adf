"""Rescale: a learned scale for every tensor of the initialisation (LRsI; ToST, section 2.3).

It is GradInit (Zhu et al., NeurIPS 2021) under a mask: min_s L(s w - eta g / |g|) / eta such that
|g| <= gamma, where g is the gradient at s w with respect to the live weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sparsediag.core.evaluation import deterministic_eval
from sparsediag.core.mask import Mask
from sparsediag.core.progress import track
from sparsediag.models.ghost import without_ghosts
from training.tweaks.base import TrainingContext, Tweak

BETAS, EPS = (0.9, 0.999), 1e-8  # of Adam
# Time of a step of the search in steps of the training, measured on small and large networks:
# OVERHEAD and, for as many images as a batch has, COST
OVERHEAD, COST = 1.0, 5.0
LEAST_IMAGES = 16  # for the statistics of batch norm
MOST_LR = 0.2
Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Rescale(Tweak):
    """LRsI: scale the first weights so that the first step lowers the loss most.

    The authors take 180 steps of 256 images, two batches, which is the time of three epochs of
    CIFAR-10 and of a hundred of the digits. Here the search takes about an epoch at most: the
    images of each step are fewer, and where 16 are still too many there are fewer steps with a
    larger learning rate. The first row of the history has these numbers. `limit = 0` is the
    authors' way.

    Attributes:
        steps: Steps of Adam on the scales; 180 in the authors' README. See `limit`.
        lr: Learning rate of Adam. See `limit`.
        eta: Length of the step that is looked ahead.
        gamma: The largest gradient norm; above it the norm itself is lowered.
        min_scale: The smallest scale of a weight; that of a bias is 0.
        masked: Learn the scales of the masked network; False for those of the dense one.
        ghosts: Learn them with ghosts that fade, not for the plain network that is left.
        limit: Time of the search at most, in epochs of the training, to which images, steps and lr
            are adapted; 0 for none.
    """

    steps: int = 180
    lr: float = 0.01
    eta: float = 0.1
    gamma: float = 1.0
    min_scale: float = 0.01
    masked: bool = True
    ghosts: bool = False
    limit: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps = {self.steps}: need 0 or more")
        for key in ("lr", "eta", "gamma"):
            if not getattr(self, key) > 0:
                raise ValueError(f"{key} = {getattr(self, key)}: need a positive number")
        if not self.limit >= 0:
            raise ValueError(f"limit = {self.limit}: need 0 or a positive number of epochs")
        if not 0 <= self.min_scale < 1:
            raise ValueError(f"min_scale = {self.min_scale}: need a scale in [0, 1)")

    def phase(self, epoch: int, epochs: int) -> None:
        """Return the same key for all epochs: only the first weights are scaled."""

    def plan(self, context: TrainingContext) -> tuple[int, int, float]:
        """Return the steps, the images in each of them, and the learning rate."""
        batch_size, images = context.batch_size, 2 * context.batch_size
        if not (self.limit and context.epoch_steps and self.steps):
            return self.steps, images, self.lr
        time = self.limit * context.epoch_steps  # in steps of the training
        fitting = (time / self.steps - OVERHEAD) / COST * batch_size
        images = min(images, max(LEAST_IMAGES, 2 * int(fitting / 2)))
        most = int(time / (OVERHEAD + COST * images / batch_size))
        steps = min(self.steps, max(1, most))
        return steps, images, min(self.lr * self.steps / steps, max(self.lr, MOST_LR))

    def metrics(self, context: TrainingContext) -> dict[str, Any]:
        """Return the numbers of `plan`."""
        steps, images, lr = self.plan(context)
        return {"rescale_steps": steps, "rescale_images": images, "rescale_lr": lr}

    def start(self, context: TrainingContext) -> dict[str, float]:
        """Scale the weights of a new network, in place; return the scales by name."""
        if context.resumed:
            return {}
        net, keep_ghosts = context.net, self.ghosts or context.permanent_ghosts
        steps, images, lr = self.plan(context)
        tweak = replace(self, steps=steps, lr=lr)
        search = ScaleSearch(tweak, net, context.mask if self.masked else None)
        batches = ((x[: images // 2], y[: images // 2]) for x, y in context.batches)
        with nullcontext() if keep_ghosts else without_ghosts(net):
            for _ in track(range(steps), context.progress):
                search.step(batches)
        search.apply_()
        return dict(zip(search.start, search.scales.tolist(), strict=True))


class ScaleSearch:
    """The search for the scales of a network.

    Args:
        tweak: The constants.
        net: The network; its modes and buffers are not changed.
        mask: The live weights.

    Attributes:
        start: The tensors that get a scale, by name: all that are not 0.
        zeros: The other tensors; they are part of the gradient and of the step.
        scales: A scale for each tensor in `start`, (tensors,).
    """

    def __init__(self, tweak: Rescale, net: nn.Module, mask: Mask | None) -> None:
        self.tweak, self.net, self.mask = tweak, net, mask
        weights = {n: p.detach().clone() for n, p in net.named_parameters()}
        for name, m in (mask or {}).items():
            weights[name].masked_fill_(~m.to(weights[name].device), 0)
        self.start = {n: w for n, w in weights.items() if bool(w.any())}
        self.zeros = {n: w.requires_grad_() for n, w in weights.items() if n not in self.start}
        like = next(iter(self.start.values()))
        self.scales = like.new_ones(len(self.start))
        self.min_scales = like.new_tensor(
            [0.0 if n.endswith("bias") else tweak.min_scale for n in self.start]
        )
        self.means = {kind: torch.zeros_like(self.scales) for kind in ("norm", "loss")}
        self.counts = dict.fromkeys(self.means, 0)
        self.squares = torch.zeros_like(self.scales)

    def step(self, batches: Batches) -> None:
        """Lower the gradient's norm where it is too large, else the loss one step ahead."""
        (x1, y1), (x2, y2) = next(batches), next(batches)
        x, y = torch.cat([x1, x2]), torch.cat([y1, y2])
        scales = self.scales.clone().requires_grad_()
        weights = self.scale_weights(scales)
        gradient, norm = self.gradient(weights, x, y)
        if not norm:
            return
        if norm > self.tweak.gamma:
            kind, value = "norm", norm
        else:  # on half of these images and a new batch, as GradInit does
            kind = "loss"
            half, (x3, y3) = len(x) // 2, next(batches)
            x, y = torch.cat([x[:half], x3]), torch.cat([y[:half], y3])
            value = self.loss(self.look_ahead(weights, gradient, norm), x, y) / self.tweak.eta
        (slope,) = torch.autograd.grad(value, scales)
        self.adam_step(kind, slope.clamp(-1, 1))

    def scale_weights(self, scales: Tensor) -> dict[str, Tensor]:
        """Return all tensors at these scales; those that are 0 stay 0."""
        scaled = {name: s * w for s, (name, w) in zip(scales, self.start.items(), strict=True)}
        return scaled | self.zeros

    def gradient(
        self, weights: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the differentiable gradient with respect to the live weights, and its norm."""
        loss, tensors = self.loss(weights, x, y), list(weights.values())
        slopes = torch.autograd.grad(loss, tensors, create_graph=True, materialize_grads=True)
        gradient = dict(zip(weights, slopes, strict=True))
        for name, m in (self.mask or {}).items():
            gradient[name] = gradient[name] * m.to(gradient[name])
        return gradient, torch.stack([g.square().sum() for g in gradient.values()]).sum().sqrt()

    def look_ahead(
        self, weights: dict[str, Tensor], gradient: dict[str, Tensor], norm: Tensor
    ) -> dict[str, Tensor]:
        """Return the weights after a step of length eta, whose gradient is taken as constant."""
        step = self.tweak.eta / norm.detach()
        return {name: w - step * gradient[name].detach() for name, w in weights.items()}

    def loss(self, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy, with batch norm by batches."""
        buffers = {n: b.clone() for n, b in self.net.named_buffers()}
        with deterministic_eval(self.net, batch_norm="train"):
            return F.cross_entropy(functional_call(self.net, weights | buffers, (x,)), y)

    def adam_step(self, kind: str, slope: Tensor) -> None:
        """Take a step of Adam; both kinds of steps share the squares and have their own mean."""
        self.counts[kind] += 1
        (beta1, beta2), total = BETAS, sum(self.counts.values())
        mean = self.means[kind].lerp_(slope, 1 - beta1) / (1 - beta1 ** self.counts[kind])
        mean_square = self.squares.lerp_(slope.square(), 1 - beta2) / (1 - beta2**total)
        scales = self.scales - self.tweak.lr * mean / (mean_square.sqrt() + EPS)
        self.scales = torch.maximum(scales, self.min_scales)

    @torch.no_grad()
    def apply_(self) -> None:
        """Scale the tensors of the network, with the dead weights of a mask."""
        for s, name in zip(self.scales, self.start, strict=True):
            self.net.get_parameter(name).mul_(s)
