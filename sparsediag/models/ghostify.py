"""Add ghosts to any net: soft neurons for its ReLUs, skips around its 3x3 convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparsediag.core.evaluation import deterministic_eval
from sparsediag.models.ghost import GhostReLU, GhostSkip


def ghostify(
    net: nn.Module, x: Tensor, *, neurons: bool = True, skips: str | None = "average"
) -> None:
    """Add ToST's ghosts to `net`, in place; at strength 0 it is the plain net, bit for bit.

    Every `nn.ReLU` becomes a `GhostReLU`. Every 3x3 convolution but the first gets a `GhostSkip`
    from its input to its output, or to the output of the batch norm that follows. Their names end
    in ".ghost"; all other names stay. Fade them with `training.tweaks`: `GhostNeurons().update(net,
    epoch, epochs)`.

    Args:
        net: Any net. Functions that it calls (`F.relu`) cannot be replaced.
        x: A batch, to find which batch norm follows which convolution and how sizes change.
        neurons: Whether ReLUs become ghosts.
        skips: Kind of the skips (see `GhostSkip`), or None for none.

    Raises:
        ValueError: If the net has ghosts already, or no place for one.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    >>> ghostify(net, torch.zeros(1, 1, 8, 8))
    >>> [name for name, m in net.named_modules() if isinstance(m, GhostReLU | GhostSkip)]
    ['1.ghost', '2']
    """
    if any(isinstance(m, GhostReLU | GhostSkip) for m in net.modules()):
        raise ValueError("the net has ghosts already; build a new one")
    sites = _find_sites(net, x) if skips else {}
    modules = net.named_modules(remove_duplicate=False)
    relus = [(name, m) for name, m in modules if type(m) is nn.ReLU and neurons]
    if not sites and not relus:
        raise ValueError("the net has no 3x3 convolution after its first, and no nn.ReLU")
    ghosts = {relu: GhostReLU().to(x.device) for _, relu in relus}
    for name, relu in relus:
        owner, _, last = name.rpartition(".")
        setattr(net.get_submodule(owner), last, ghosts[relu])
    for conv, target in sites.items():
        ghost = GhostSkip(conv.in_channels, conv.out_channels, conv.stride[0], skips or "")
        conv.ghost = ghost.to(conv.weight.device)
        hooks = _SkipHooks(ghost)
        conv.register_forward_pre_hook(hooks.save_input)
        target.register_forward_hook(hooks.add_skip)


class _SkipHooks:
    """Pass the input of a convolution to the place where its ghost is added."""

    def __init__(self, ghost: GhostSkip) -> None:
        self.ghost = ghost
        self.x: Tensor | None = None

    def save_input(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.x = args[0]

    def add_skip(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if self.x is None:  # a norm that follows another convolution too
            return output
        x, self.x = self.x, None
        output_with_skip: Tensor = self.ghost(output, x)
        return output_with_skip


def _find_sites(net: nn.Module, x: Tensor) -> dict[nn.Conv2d, nn.Module]:
    """Return the 3x3 convolutions after the first, each with the module whose output gets the skip.

    That is the batch norm which directly follows, or the convolution itself.
    """
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []  # module, input, output; in order

    def record(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        calls.append((module, args[0], output))

    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    hooks = [m.register_forward_hook(record) for m in layers]
    try:
        with deterministic_eval(net), torch.no_grad():
            net(x)
    finally:
        for hook in hooks:
            hook.remove()
    sites: dict[nn.Conv2d, nn.Module] = {}
    first = next((i for i, call in enumerate(calls) if isinstance(call[0], nn.Conv2d)), 0)
    for i, (conv, conv_input, output) in enumerate(calls):
        if i == first or not isinstance(conv, nn.Conv2d):
            continue
        size = tuple(-(-n // s) for n, s in zip(conv_input.shape[2:], conv.stride, strict=True))
        is_3x3 = conv.kernel_size == (3, 3) and conv.stride[0] == conv.stride[1]
        if is_3x3 and output.shape[2:] == size:
            following, norm_input, _ = calls[i + 1] if i + 1 < len(calls) else calls[i]
            is_norm = isinstance(following, nn.BatchNorm2d) and norm_input is output
            sites[conv] = following if is_norm else conv
    return sites
