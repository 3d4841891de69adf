"""Connectivity: the paths from the input to the output of a network along live weights.

With every live weight set to 1, biases to 0 and norms and activations removed, the sum of the
outputs for an image of ones is the number of paths, and its derivative by a weight is positive if a
path runs through that weight (as in SynFlow's scores, Tanaka et al., NeurIPS 2020). A live weight
on no path has no effect: Vysogorets and Kempe (JMLR 24, 2023) measure the effective sparsity
without it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sparsediag.core.evaluation import deterministic_eval
from sparsediag.core.mask import Mask
from sparsediag.core.prunable import to_oihw
from sparsediag.models import Ghost

# the torch modules whose layers are removed: norms and activations
REMOVED = ("batchnorm", "instancenorm", "normalization", "activation")


@dataclass(frozen=True)
class Paths:
    """The paths of a masked network.

    Attributes:
        count: Number of paths; a path through a pool counts by its share. Infinite above 1e308.
        used: Number of live weights on a path, by name; of a bias, of all its live weights.
        alive: Number of live weights, by name.
    """

    count: float
    used: dict[str, int]
    alive: dict[str, int]

    @property
    def empty(self) -> list[str]:
        """Names of the weights without a live entry."""
        return [name for name, alive in self.alive.items() if not alive]

    @property
    def log10(self) -> float:
        """Decimal logarithm of the count; -inf if there is no path."""
        return math.log10(self.count) if self.count else -math.inf


def paths(net: nn.Module, mask: Mask, size: torch.Size) -> Paths:
    """Count the paths of `net` under `mask`.

    Args:
        net: Convolutions, linear layers, norms, activations (modules or `F.relu`) and pools; it is
            not changed.
        mask: The live weights; weights that it does not cover are all live.
        size: Shape of one input without the batch, (channels, height, width).

    Returns:
        The number of paths, and of live weights on them.

    Raises:
        ValueError: If the mask does not fit the network.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> mask = Mask({"0.weight": torch.tensor([[True, True], [False, False]])})
    >>> result = paths(net, mask, torch.Size([2]))
    >>> result.count, result.used
    (2.0, {'0.weight': 2})
    """
    mask.check(net)
    with torch.inference_mode(False), torch.enable_grad():
        linear = _linearize(copy.deepcopy(net).double())
        device = next(linear.parameters()).device
        covered = {
            name: m.to(device).double().requires_grad_() for name, m in mask.items() if m.dim() > 1
        }
        weights = {
            name: torch.ones_like(p) if p.dim() > 1 else torch.zeros_like(p)
            for name, p in linear.named_parameters()
        } | covered
        image = torch.ones(1, *size, dtype=torch.float64, device=device)
        with deterministic_eval(linear):
            with torch.no_grad():
                count = float(functional_call(linear, weights, (image,)).sum())
            for module in linear.modules():
                module.register_forward_hook(_rescale)
            total = functional_call(linear, weights, (image,)).sum()
        slopes: tuple[Tensor | None, ...] = (None,) * len(covered)
        if total.requires_grad:
            slopes = torch.autograd.grad(total, list(covered.values()), allow_unused=True)
    alive = {name: int(m.sum()) for name, m in mask.items()}
    used = {
        name: 0 if slope is None else int(((slope > 0) & (m > 0)).sum())
        for (name, m), slope in zip(covered.items(), slopes, strict=True)
    }
    return Paths(count, {name: used.get(name, alive[name]) for name in mask}, alive)


def dead_units(
    mask: Mapping[str, Tensor], name: str, net: nn.Module | None = None
) -> tuple[int, int]:
    """Return the number of output and of input channels of a weight without a live entry.

    Args:
        mask: The masks of the weights.
        name: Name of the weight.
        net: The network; needed for weights that are not (out, in, ...): those of transposed
            convolutions and of GPT-2's layers.

    >>> dead_units({"fc.weight": torch.tensor([[True, False, False], [False] * 3])}, "fc.weight")
    (1, 2)
    """
    if mask[name].dim() < 2:
        return int((~mask[name]).sum()), 0
    alive = to_oihw(net)(name, mask[name]) if net else mask[name]
    if alive.dim() > 2:
        alive = alive.flatten(2).any(2)
    return int((~alive.any(1)).sum()), int((~alive.any(0)).sum())


def _linearize(net: nn.Module) -> nn.Module:
    """Remove norms, activations and ghosts from the network, and turn max into average pools."""
    for module in list(net.modules()):
        if isinstance(module, Ghost):
            module.fade(0.0)
        for name, child in list(module.named_children()):
            kind = type(child).__module__.rpartition(".")[2]
            if kind in REMOVED and not isinstance(child, nn.MultiheadAttention):
                setattr(module, name, nn.Identity())
            if isinstance(child, nn.MaxPool2d) and child.dilation == 1:
                size = (child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, nn.AvgPool2d(*size))
    return net


def _rescale(module: nn.Module, args: Any, output: Any) -> Any:
    """Divide an output by its maximum, so that products of many layers do not overflow."""
    if not isinstance(output, Tensor):
        return output
    peak = output.detach().max()
    return output / torch.where(peak > 0, peak, 1)
