"""Files of other tools: a small network, and the ways in which they store a mask beside it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from sparsediag import Checkpoint, Mask

X = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(2))
BATCH = [(X, torch.arange(5) % 4)]
Payload = dict[str, Any]


class Times(nn.Module):
    """A parametrisation that masks."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.float())

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def make() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)
    )


def dense() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def random_mask(net: nn.Module, density: float = 0.3) -> Mask:
    """Return a random mask of every weight with two dimensions or more."""
    generator = torch.Generator().manual_seed(1)
    weights = {n: p for n, p in net.named_parameters() if p.dim() > 1}
    return Mask({n: torch.rand(p.shape, generator=generator) < density for n, p in weights.items()})


def masked(net: nn.Module, mask: Mask) -> nn.Module:
    copied = copy.deepcopy(net)
    mask.apply_(copied)
    return copied


def pruned(net: nn.Module, mask: Mask) -> nn.Module:
    """Mask `net` with torch.nn.utils.prune."""
    for name, m in mask.items():
        module, _, weight = name.rpartition(".")
        prune.custom_from_mask(net.get_submodule(module), weight, m)
    return net


def parametrised(net: nn.Module, mask: Mask) -> nn.Module:
    for name, m in mask.items():
        module, _, weight = name.rpartition(".")
        parametrize.register_parametrization(net.get_submodule(module), weight, Times(m))
    return net


def beside(net: nn.Module, mask: Mask, end: str, dtype: torch.dtype = torch.float32) -> Payload:
    """Return a state dict with each mask under a name that replaces `weight` by `end`."""
    masks = {f"{name.removesuffix('weight')}{end}": m.to(dtype) for name, m in mask.items()}
    return net.state_dict() | masks


def write(path: Path, payload: Any) -> Path:
    torch.save(payload, path)
    return path


def load(folder: Path, payload: Payload) -> Checkpoint:
    """Write a payload to a file and load it."""
    return Checkpoint.load(write(folder / "net.pt", payload))
