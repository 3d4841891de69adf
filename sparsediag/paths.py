"""Paths: the ways from the input to the output along live weights, and what lies on none.

With every live weight at 1, biases at 0, and norms and activations taken out, the sum of the
outputs for an image of ones counts the paths, and the slope of that count by a weight says whether
any path runs through it (as SynFlow's scores do, Tanaka et al., NeurIPS 2020). A live weight on no
path is as good as dead: Vysogorets and Kempe (JMLR 24, 2023) call what is left the effective
sparsity.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sparsediag.mask import Mask
from sparsediag.models import Ghost
from sparsediag.modes import exactly

LINEAR = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.batchnorm._LazyNormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.SiLU,
    nn.Mish,
    nn.GELU,
    nn.Hardswish,
    nn.Tanh,
)


@dataclass(frozen=True)
class Paths:
    """The paths of a masked net.

    Attributes:
        count: Number of paths; one that an average pool takes counts by its share, and one that a
            max pool drops not at all.
        used: Weights on a path, of those that the mask covers, by name.
        alive: Live weights, by name.
    """

    count: float
    used: dict[str, int]
    alive: dict[str, int]

    @property
    def empty(self) -> list[str]:
        """Weights that a mask has left nothing of."""
        return [name for name, alive in self.alive.items() if not alive]

    @property
    def log10(self) -> float:
        """Decimal logarithm of the count, -inf where there is no path."""
        return math.log10(self.count) if self.count else -math.inf


def paths(net: nn.Module, mask: Mask, size: torch.Size) -> Paths:
    """Count the paths of `net` under `mask`.

    Args:
        net: Of convolutions, linear layers, norms, activations and pools, where an activation is a
            module or `F.relu`. It is left as it is.
        mask: What is alive; weights that it leaves out all are.
        size: Of one input, without the batch: (channels, height, width).

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> mask = Mask({"0.weight": torch.tensor([[True, True], [False, False]])})
    >>> found = paths(net, mask, torch.Size([2]))
    >>> found.count, found.used
    (2.0, {'0.weight': 2})
    """
    mask.check(net)
    twin = _bare(copy.deepcopy(net).double())
    device = next(twin.parameters()).device
    ones = {
        name: torch.ones_like(p) if p.dim() > 1 else torch.zeros_like(p)
        for name, p in twin.named_parameters()
    }
    for name, m in mask.items():
        ones[name] = m.to(device, torch.float64).requires_grad_()
    image = torch.ones(1, *size, dtype=torch.float64, device=device)
    with exactly(twin), torch.enable_grad():
        count = functional_call(twin, ones, (image,)).sum()
        covered = [ones[name] for name in mask]
        slopes: tuple[Tensor | None, ...] = (None,) * len(covered)
        if count.requires_grad:
            slopes = torch.autograd.grad(count, covered, allow_unused=True)
    used = {
        name: 0 if slope is None else int(((slope > 0) & m.to(device)).sum())
        for (name, m), slope in zip(mask.items(), slopes, strict=True)
    }
    return Paths(float(count.detach()), used, {name: int(m.sum()) for name, m in mask.items()})


def dead_units(mask: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """Filters (rows) of a weight without a live weight, and channels (columns)."""
    alive = mask[name].flatten(2) if mask[name].dim() > 2 else mask[name][:, :, None]
    alive = alive.any(2)
    return int((~alive.any(1)).sum()), int((~alive.any(0)).sum())


def _bare(net: nn.Module) -> nn.Module:
    """The net without norms, activations and ghosts, in place."""
    for module in list(net.modules()):
        if isinstance(module, Ghost):
            module.fade(0.0)
        for name, child in list(module.named_children()):
            if isinstance(child, LINEAR):
                setattr(module, name, nn.Identity())
    return net
