"""The dimensions of an output that hold its samples and its units (channels, neurons)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sparsediag.core.prunable import is_linear
from sparsediag.diagnostics.layers.hooks import observe

# layers whose outputs have their units in the second and in the last dimension
SECOND = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
LAST = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def per_sample(net: nn.Module, samples: int) -> Callable[[Tensor], bool]:
    """Return a function that tells if an output has one row for each sample.

    In a network with recurrent or attention modules that do not put the samples first, a shape
    (n, n, ...) for n samples may be (time, samples, ...), and does not count.

    Args:
        net: The network that made the output.
        samples: Number of samples in the batch.

    >>> per_sample(nn.LSTM(2, 2), 3)(torch.zeros(3, 3, 2))
    False
    """
    time_first = any(getattr(m, "batch_first", True) is False for m in net.modules())

    def check(output: Tensor) -> bool:
        ambiguous = time_first and output.dim() > 2 and output.shape[1] == samples
        return len(output) == samples and not ambiguous

    return check


@contextmanager
def unit_axis(net: nn.Module) -> Iterator[Callable[[Tensor], int | None]]:
    """Yield a function that returns the dimension of an output's units; None where unclear.

    The layer that ran last decides: its units are in the second dimension (convolutions) or the
    last (linear layers). They are still there if the output differs in that dimension alone, or is
    smaller in others; if the dimensions were permuted, the units are in the one that has the same
    length. Before any layer has run they are in the second dimension, (samples, units, ...), or in
    the last of three, as for tokens, unless the network has one-dimensional convolutions.

    Args:
        net: The network; the hooks are removed at the end of the block.

    >>> net = nn.Linear(2, 4)
    >>> with unit_axis(net) as axis:
    ...     axis(net(torch.zeros(5, 3, 3, 2)).relu())
    3
    """
    layers = {n: d for n, m in net.named_modules() if (d := _axis_of(m)) is not None}
    has_signals = any(isinstance(m, nn.Conv1d | nn.ConvTranspose1d) for m in net.modules())
    last: dict[str, tuple[int, torch.Size]] = {}

    def remember(name: str, outputs: list[Tensor], _call: int) -> None:
        last["layer"] = layers[name] % outputs[0].dim(), outputs[0].shape

    def axis(output: Tensor) -> int | None:
        if output.dim() < 3:
            return 1
        if not last:
            return 2 if output.dim() == 3 and not has_signals else 1
        return _follow(*last["layer"], output.shape)

    with observe(net, layers, remember):
        yield axis


def _axis_of(layer: nn.Module) -> int | None:
    """Return the dimension of a layer's units; None if it has none."""
    if isinstance(layer, SECOND):
        return 1
    if isinstance(layer, LAST) or is_linear(layer):
        return -1
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm) and len(layer.normalized_shape) == 1:
        # subclasses of others may permute the dimensions before and after
        return -1 if type(layer) in (nn.LayerNorm, nn.RMSNorm) else None
    return None


def _follow(axis: int, before: torch.Size, after: torch.Size) -> int | None:
    """Return where dimension `axis` of one output is in the next one; None where unclear."""
    same_dims = len(before) == len(after)
    others = [
        (old, new) for d, (old, new) in enumerate(zip(before, after, strict=False)) if d != axis
    ]
    if same_dims and all(old == new for old, new in others):
        return axis
    candidates = [d for d in range(1, len(after)) if after[d] == before[axis]]
    if len(candidates) == 1 and before.numel() == after.numel():
        return candidates[0]
    in_place = axis in candidates or axis == 1  # images may be concatenated before they are pooled
    return axis if same_dims and in_place and all(old >= new for old, new in others) else None
