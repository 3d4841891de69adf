"""The dimensions of an output that hold its samples and its units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sparsediag.core.prunable import linear
from sparsediag.diagnostics.layers.hooks import tapped

# layers with units in the second and in the last dimension of what they give
SECOND = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
LAST = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def samples_first(net: nn.Module, samples: int) -> Callable[[Tensor], bool]:
    """Tells of an output whether each of its rows is a sample's: whether it has one for each.

    In a net with recurrent or attention modules that do not put the samples first, (n, n, ...) for
    n samples may be (time, samples, ...), and is not taken for rows of samples.

    Args:
        net: It made the output.
        samples: Their number in the batch.

    >>> samples_first(nn.LSTM(2, 2), 3)(torch.zeros(3, 3, 2))
    False
    """
    timed = any(getattr(m, "batch_first", True) is False for m in net.modules())

    def first(a: Tensor) -> bool:
        return len(a) == samples and not (timed and a.dim() > 2 and a.shape[1] == samples)

    return first


@contextmanager
def units(net: nn.Module) -> Iterator[Callable[[Tensor], int | None]]:
    """Inside the block, tells of an output which dimension is that of its units; None in doubt.

    The layer that ran last knows: its units are in the second dimension (convolutions) or the last
    (linear layers). They stay there if the output differs in that dimension alone, or is smaller in
    others; if its numbers lie in other dimensions, the units are in the one that is as long as
    theirs was. Before any layer has run they are in the second dimension, (samples, units, ...), or
    the last of three, as tokens have it, unless the net has convolutions of one dimension.

    Args:
        net: Its hooks are as they were after the block.

    >>> net = nn.Linear(2, 4)
    >>> with units(net) as axis:
    ...     axis(net(torch.zeros(5, 3, 3, 2)).relu())
    3
    """
    places = {n: d for n, m in net.named_modules() if (d := _place(m)) is not None}
    signals = any(isinstance(m, nn.Conv1d | nn.ConvTranspose1d) for m in net.modules())
    last: dict[str, tuple[int, torch.Size]] = {}

    def see(name: str, output: Tensor, _: int) -> None:
        last["layer"] = places[name] % output.dim(), output.shape

    def axis(a: Tensor) -> int | None:
        if a.dim() < 3:
            return 1
        if not last:
            return 2 if a.dim() == 3 and not signals else 1
        return _follow(*last["layer"], a.shape)

    with tapped(net, places, see):
        yield axis


def _place(layer: nn.Module) -> int | None:
    """The dimension of a layer's units; None where it says nothing of them."""
    if isinstance(layer, SECOND):
        return 1
    if isinstance(layer, LAST) or linear(layer):
        return -1
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm) and len(layer.normalized_shape) == 1:
        # others' may turn images over, and back again
        return -1 if type(layer) in (nn.LayerNorm, nn.RMSNorm) else None
    return None


def _follow(axis: int, before: torch.Size, after: torch.Size) -> int | None:
    """Where the units went, from dimension `axis` of one output to the next."""
    alike = len(before) == len(after)
    others = [
        (was, now) for d, (was, now) in enumerate(zip(before, after, strict=False)) if d != axis
    ]
    if alike and all(was == now for was, now in others):
        return axis
    found = [d for d in range(1, len(after)) if after[d] == before[axis]]
    if len(found) == 1 and before.numel() == after.numel():
        return found[0]
    kept = axis in found or axis == 1  # images may be joined before they are pooled
    return axis if alike and kept and all(was >= now for was, now in others) else None
