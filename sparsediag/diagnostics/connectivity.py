"""Connectivity: the paths from the input to the output along live weights.

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
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sparsediag.core.evaluation import deterministic_eval
from sparsediag.core.mask import Mask
from sparsediag.core.prunable import to_oihw
from sparsediag.models import Ghost

# where torch keeps the modules that are taken out: norms and activations
TAKEN_OUT = ("batchnorm", "instancenorm", "normalization", "activation")


@dataclass(frozen=True)
class Paths:
    """The paths of a masked net.

    Attributes:
        count: Number of paths; one that a pool takes counts by its share. Infinite above 1e308.
        used: Live weights on a path, by name; of a bias, all that are alive.
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
    with torch.inference_mode(False), torch.enable_grad():
        twin = _bare(copy.deepcopy(net).double())
        device = next(twin.parameters()).device
        ones = {
            name: torch.ones_like(p) if p.dim() > 1 else torch.zeros_like(p)
            for name, p in twin.named_parameters()
        }
        covered = {name: m.to(device) for name, m in mask.items() if m.dim() > 1}
        ones |= {name: m.double().requires_grad_() for name, m in covered.items()}
        image = torch.ones(1, *size, dtype=torch.float64, device=device)
        with deterministic_eval(twin):
            with torch.no_grad():
                count = float(functional_call(twin, ones, (image,)).sum())
            for module in twin.modules():
                module.register_forward_hook(_levelled)
            flow = functional_call(twin, ones, (image,)).sum()
        slopes: tuple[Tensor | None, ...] = (None,) * len(covered)
        if flow.requires_grad:
            slopes = torch.autograd.grad(flow, [ones[n] for n in covered], allow_unused=True)
    alive = {name: int(m.sum()) for name, m in mask.items()}
    used = {
        name: 0 if slope is None else int(((slope > 0) & m).sum())
        for (name, m), slope in zip(covered.items(), slopes, strict=True)
    }
    return Paths(count, {name: used.get(name, alive[name]) for name in mask}, alive)


def _levelled(module: nn.Module, args: Any, output: Any) -> Any:
    """The output in units of its largest entry, so that no flow is too large or too small."""
    if not isinstance(output, Tensor):
        return output
    peak = output.detach().max()
    return output / torch.where(peak > 0, peak, 1)


def dead_units(
    mask: Mapping[str, Tensor], name: str, net: nn.Module | None = None
) -> tuple[int, int]:
    """Filters of a weight without a live entry, and channels.

    Without a net they are its rows and its columns. The net tells which weights lie the other way:
    those of transposed convolutions, and GPT-2's.
    """
    if mask[name].dim() < 2:
        return int((~mask[name]).sum()), 0
    whole = to_oihw(net)(name, mask[name]) if net else mask[name]
    alive = whole.flatten(2) if whole.dim() > 2 else whole[:, :, None]
    alive = alive.any(2)
    return int((~alive.any(1)).sum()), int((~alive.any(0)).sum())


def _bare(net: nn.Module) -> nn.Module:
    """The net without norms, activations and ghosts, and with means for maxima, in place."""
    for module in list(net.modules()):
        if isinstance(module, Ghost):
            module.fade(0.0)
        for name, child in list(module.named_children()):
            kind = type(child).__module__.rpartition(".")[2]
            if kind in TAKEN_OUT and not isinstance(child, nn.MultiheadAttention):
                setattr(module, name, nn.Identity())
            if isinstance(child, nn.MaxPool2d) and child.dilation == 1:
                size = (child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, nn.AvgPool2d(*size))
    return net
