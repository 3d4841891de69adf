"""Ghosts in any net: soft neurons for its ReLUs, skips around its 3x3 convolutions."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from sparsediag.core.evaluation import deterministic_eval
from sparsediag.models.ghost import GhostReLU, GhostSkip


def ghostify(
    net: nn.Module, x: Tensor, *, neurons: bool = True, skips: str | None = "average"
) -> None:
    """Add ToST's ghosts to `net`, in place; at strength 0 it is the plain net, bit for bit.

    Every `nn.ReLU` becomes a `GhostReLU`. Around every 3x3 convolution but the first comes a
    `GhostSkip`, from its input to its output, or to that of the batch norm right behind it. Their
    names end in ".ghost"; all others stay as they are. Fade them with `training.tweaks`:
    `GhostNeurons().update(net, epoch, epochs)`.

    Args:
        net: Any net. What it calls as a function (`F.relu`) cannot be replaced.
        x: A batch, to see which batch norm follows which convolution and how sizes change.
        neurons: Whether ReLUs become ghosts.
        skips: Kind of the skips (see `GhostSkip`), or None for none.

    Raises:
        ValueError: If the net has ghosts already, or nothing that can become one.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    >>> ghostify(net, torch.zeros(1, 1, 8, 8))
    >>> [name for name, m in net.named_modules() if isinstance(m, GhostReLU | GhostSkip)]
    ['1.ghost', '2']
    """
    if any(isinstance(m, GhostReLU | GhostSkip) for m in net.modules()):
        raise ValueError("the net has ghosts already; build a new one")
    sites = _sites(net, x) if skips else []
    every = net.named_modules(remove_duplicate=False)
    relus = [(name, m) for name, m in every if type(m) is nn.ReLU and neurons]
    if not sites and not relus:
        raise ValueError("the net has no 3x3 convolution behind its first, and no nn.ReLU")
    ghosts = {relu: GhostReLU().to(x.device) for _, relu in relus}
    for name, relu in relus:
        owner, _, last = name.rpartition(".")
        setattr(net.get_submodule(owner), last, ghosts[relu])
    for conv, after in sites:
        ghost = GhostSkip(conv.in_channels, conv.out_channels, conv.stride[0], skips or "")
        conv.ghost = ghost.to(conv.weight.device)
        _Site(ghost).between(conv, after)


class _Site:
    """Carries the input of a convolution to where its ghost is added."""

    def __init__(self, ghost: GhostSkip) -> None:
        self.ghost, self.x = ghost, torch.empty(0)
        self.open = False

    def between(self, conv: nn.Module, after: nn.Module) -> None:
        conv.register_forward_pre_hook(self.enter)
        after.register_forward_hook(self.leave)

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.x, self.open = args[0], True

    def leave(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if not self.open:  # a norm that serves another convolution too
            return output
        found: Tensor = self.ghost(output, self.x)
        self.x, self.open = torch.empty(0), False
        return found


def _sites(net: nn.Module, x: Tensor) -> list[tuple[nn.Conv2d, nn.Module]]:
    """The 3x3 convolutions but the first, and for each the module whose output gets the skip."""
    order: list[tuple[str, nn.Module, int, int, bool]] = []

    def note(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            same = output.shape[2:] == tuple(-(-n // s) for n, s in _halved(module, args[0]))
            order.append((name, module, id(args[0]), id(output), same))
            held.extend([args[0], output])  # so that no id is used twice

        return hook

    held: list[Tensor] = []
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [
        m.register_forward_hook(note(name, m))
        for name, m in net.named_modules()
        if isinstance(m, kinds)
    ]
    try:
        with deterministic_eval(net), torch.no_grad():
            net(x)
    finally:
        for hook in hooks:
            hook.remove()
    found: dict[str, tuple[nn.Conv2d, nn.Module]] = {}
    convolutions = [row for row in order if isinstance(row[1], nn.Conv2d)]
    followers = dict(itertools.pairwise(order))
    for row in convolutions[1:]:
        name, conv, _, output, same = row
        assert isinstance(conv, nn.Conv2d)
        if conv.kernel_size != (3, 3) or conv.stride[0] != conv.stride[1] or not same:
            continue
        behind = followers.get(row)
        norm = behind is not None and isinstance(behind[1], nn.BatchNorm2d) and behind[2] == output
        found[name] = (conv, behind[1] if behind and norm else conv)
    return list(found.values())


def _halved(module: nn.Module, x: Tensor) -> list[tuple[int, int]]:
    """Height and width of the input, each with the stride."""
    stride = module.stride if isinstance(module, nn.Conv2d) else (1, 1)
    return list(zip(x.shape[2:], stride, strict=True))
