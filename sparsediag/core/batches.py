"""Batches: the samples that a loss is measured on, in memory and the same at every reading.

A batch is a pair (inputs, targets). Inputs are a tensor, a tuple (positional arguments of the net)
or a dict (keyword arguments); targets are what the loss takes: a tensor, several tensors, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, RandomSampler

Batch = tuple[Any, Any]
NEED_FIXED = (
    "A Problem needs fixed batches: pass shuffle=False and no augmentation, or a list of batches: "
    "list(itertools.islice(loader, 8))"
)


def materialize(
    batches: Iterable[Any], device: torch.device, dtype: torch.dtype | None = None
) -> list[Batch]:
    """Return the batches as a list of pairs in memory on `device`, numpy's arrays as tensors.

    Real numbers of numpy, which are float64 by default, get the `dtype`.

    Anything but a list or tuple is read twice, so that a loader that shuffles or augments is
    noticed. A dict becomes a pair of itself and its `labels`.

    Raises:
        ValueError: If there is no batch, one is not a pair, or a second reading gives others.

    >>> len(materialize([(torch.zeros(2, 3), torch.zeros(2))], torch.device("cpu")))
    1
    """
    if isinstance(batches, DataLoader) and isinstance(batches.sampler, RandomSampler):
        raise ValueError(f"the loader shuffles (its sampler is a RandomSampler). {NEED_FIXED}")
    as_pair_of_tensors = partial(as_pair, dtype=dtype)
    hold = partial(_hold, device=device)
    pairs = [pytree.tree_map(hold, as_pair_of_tensors(b), is_leaf=_is_packed) for b in batches]
    if not pairs:
        raise ValueError("got no batches; need at least one pair (inputs, targets)")
    for i, (x, y) in enumerate(pairs):
        if (isinstance(y, Tensor) and y.dim() == 0) or num_samples((x, y)) == 0:
            raise ValueError(f"batch {i} has no targets; need one for each sample of a batch")
    if isinstance(batches, list | tuple):
        return pairs
    second = map(as_pair_of_tensors, batches)
    if (first := next(second, None)) is None:
        raise ValueError("the batches can be read only once; give a list or a loader")
    if not all(_equal(*both) for both in zip_longest(pairs, chain([first], second))):
        raise ValueError(
            f"two readings of the loader gave different batches: it shuffles or augments. "
            f"{NEED_FIXED}"
        )
    return pairs


def _hold(part: Any, device: torch.device) -> Any:
    """Return a tensor on a device, without the graph that it came from; others as they are."""
    if isinstance(part, PackedSequence):
        return part.to(device)  # type: ignore[arg-type]  # batch sizes stay on the CPU
    if not isinstance(part, Tensor):
        return part
    tensor = part.clone() if part.is_inference() else part.detach()
    return tensor.to(device).requires_grad_(part.requires_grad)


def _is_packed(part: Any) -> bool:
    return isinstance(part, PackedSequence)


def as_pair(batch: Any, dtype: torch.dtype | None = None) -> Batch:
    """Return a batch as (inputs, targets), arrays as tensors and their real numbers in `dtype`.

    >>> as_pair({"input_ids": 1, "labels": 2})
    ({'input_ids': 1, 'labels': 2}, 2)
    """

    def as_tensor(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array.copy())
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    batch = dict(batch) if isinstance(batch, Mapping) else batch
    try:
        batch = pytree.tree_map_only(np.ndarray, as_tensor, batch)
    except TypeError as error:
        raise ValueError(f"an array of a batch cannot be a tensor: {error}") from None
    if isinstance(batch, Mapping):
        return dict(batch), batch.get("labels")
    if isinstance(batch, Tensor) or not isinstance(batch, tuple | list) or len(batch) != 2:
        size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise ValueError(
            f"a batch is a {type(batch).__name__}{size}; need pairs (inputs, targets) in a list: "
            "several inputs as ((a, b), targets), no targets as (inputs, None), or a dict"
        )
    x, y = (dict(part) if isinstance(part, Mapping) else part for part in batch)
    if not tensors_in(x):
        raise ValueError(
            f"the inputs of a batch are {type(x).__name__}, and hold no tensor; give the tensors "
            "that the net takes, those of a graph as ((x, edge_index, batch), targets)"
        )
    return x, y


def tensors_in(tree: Any) -> list[Tensor]:
    """Return all tensors in a tensor, a tuple, a dict, or a nesting of these."""
    return [t for t in pytree.tree_leaves(tree) if isinstance(t, Tensor)]


def tree_map(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return the tree with `change` applied to every tensor."""
    return pytree.tree_map_only(Tensor, change, tree)


def call_arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments that pass these inputs to a net."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    several = isinstance(inputs, tuple | list) and not isinstance(inputs, PackedSequence)
    return (tuple(inputs), {}) if several else ((inputs,), {})


def num_samples(batch: Batch) -> int:
    """Return the number of samples: that of the targets, else that of the inputs.

    A tensor has a row for each sample, and a packed sequence has its number of sequences. A list
    may have an entry for each sample (images of several sizes) or hold several tensors; the other
    inputs and the targets decide.

    Raises:
        ValueError: If it is not clear.

    >>> images, boxes = [torch.zeros(3, 8, 8)] * 2, [{"boxes": torch.zeros(5, 4)}] * 2
    >>> num_samples(((images, boxes), None))
    2
    """
    x, y = batch
    if isinstance(y, Tensor):
        return y.size(0)
    arguments = call_arguments(x)
    of_inputs = _common([_counts(part) for part in (*arguments[0], *arguments[1].values())])
    counts = _common([_counts(y), of_inputs]) if tensors_in(y) else of_inputs
    if len(counts) != 1:
        raise ValueError(
            "the number of samples in a batch may be "
            f"{' or '.join(map(str, sorted(counts))) or 'anything'}; "
            "give targets with one row for each sample: (inputs, targets)"
        )
    return next(iter(counts))


def _counts(part: Any) -> set[int]:
    """Return the possible numbers of samples in an input or a target."""
    if isinstance(part, Tensor):
        return {part.size(0)} if part.dim() else set()
    if isinstance(part, PackedSequence):
        return {int(part.batch_sizes[0])}
    if isinstance(part, Mapping):
        return _common([_counts(value) for value in part.values()])
    if not isinstance(part, tuple | list) or not tensors_in(part):
        return set()
    entries = [_counts(entry) for entry in part]
    return {len(part)} | set.intersection(*entries)


def _common(counts: Sequence[set[int]]) -> set[int]:
    """Return the first set that is not empty, without what later ones rule out."""
    first: set[int] = set()
    for other in counts:
        first = first & other or first or other
    return first


def is_per_sample(batch: Batch) -> bool:
    """Return whether every tensor has one row for each sample, so that samples can be selected."""
    x, y = batch
    arguments = call_arguments(x)
    parts = [*arguments[0], *arguments[1].values(), *(y if isinstance(y, tuple | list) else [y])]
    lists = [part for part in parts if isinstance(part, tuple | list) and tensors_in(part)]
    samples = num_samples(batch)
    return not any(len(part) == samples for part in lists) and all(
        t.layout == torch.strided and not t.is_nested and t.dim() > 0 and len(t) == samples
        for t in tensors_in(batch)
    )


def select_samples(batch: Batch, which: slice | list[int]) -> Batch:
    """Return some samples of a batch for which `is_per_sample` holds."""
    x, y = tree_map(batch, lambda t: t[which])
    return x, y


def max_chunk(batches: Sequence[Batch], numbers: int) -> int:
    """Return the number of samples whose inputs have about this many numbers.

    Inputs of integers (tokens) become much larger inside a net, so of these at most the size of
    the largest batch.
    """
    inputs = tensors_in(batches[0][0])
    fits = max(1, numbers * num_samples(batches[0]) // max(1, sum(t.numel() for t in inputs)))
    return (
        fits
        if all(t.is_floating_point() for t in inputs)
        else min(fits, max(map(num_samples, batches)))
    )


def rechunk(batches: Sequence[Batch], samples: int) -> list[Batch]:
    """Return the same samples in batches of at most `samples`: join small ones, split large ones.

    >>> [len(y) for _, y in rechunk([(torch.zeros(n, 3), torch.zeros(n)) for n in (2, 3, 9)], 5)]
    [5, 5, 4]
    """
    chunks: list[Batch] = []
    for batch in batches:
        joined = batch
        if (
            chunks
            and num_samples(chunks[-1]) + num_samples(batch) <= samples
            and _alike(chunks[-1], batch)
        ):
            joined = concatenate(chunks.pop(), batch)
        if num_samples(joined) <= samples or not is_per_sample(joined):
            chunks.append(joined)
            continue
        starts = range(0, num_samples(joined), samples)
        chunks += [select_samples(joined, slice(i, i + samples)) for i in starts]
    return chunks


def is_separable(
    batches: Sequence[Batch], gradient: Callable[[list[Batch]], Tensor]
) -> bool | None:
    """Return whether the gradient of a few samples is the mean of the gradients of uneven parts.

    The samples are spread over all batches, since they may be sorted. None if the net fails on a
    part of a batch, as one on a graph does.

    Args:
        batches: The samples.
        gradient: Returns the gradient of the loss of all samples in some batches.
    """
    spread = batches[:: -(-len(batches) // 8)]
    per_batch = -(-8 // len(spread))
    strided = [
        select_samples(b, slice(None, None, max(1, num_samples(b) // per_batch))) for b in spread
    ]
    probes = rechunk([select_samples(b, slice(per_batch)) for b in strided], 8)
    probe = max(probes[:2], key=num_samples)
    third = num_samples(probe) // 2 - (num_samples(probe) > 3)  # 8 samples as 3, 3 and 2
    if not third:
        return True if sum(map(num_samples, batches)) == 1 else None
    try:
        joint, parts = gradient([probe]), gradient(rechunk([probe], third))
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return None
    tolerance = 10 * torch.finfo(joint.dtype).eps ** 0.5 * (joint.norm() + parts.norm())
    same = (joint - parts).norm() <= tolerance
    return bool(same) if joint.isfinite().all() and parts.isfinite().all() else None


def concatenate(one: Batch, two: Batch) -> Batch:
    """Return the samples of two batches in one.

    Raises:
        ValueError: If they have other shapes, types or structures.
    """
    if not _alike(one, two):
        raise ValueError("the batches have other shapes; need the same but for the first dimension")
    x, y = pytree.tree_map(lambda t, u: torch.cat((t, u)) if isinstance(t, Tensor) else t, one, two)
    return x, y


def _alike(one: Batch, two: Batch) -> bool:
    """Return whether two batches can be concatenated."""
    return (
        is_per_sample(one)
        and is_per_sample(two)
        and _match(one, two, lambda t, u: t.shape[1:] == u.shape[1:] and t.dtype == u.dtype)
    )


def _equal(one: Batch, two: Batch) -> bool:
    return _match(one, two, lambda t, u: torch.equal(t.cpu(), u.cpu()))


def _match(one: Batch, two: Batch, same: Callable[[Tensor, Tensor], bool]) -> bool:
    """Return whether two batches have the same structure, and `same` tensors in it."""
    (a, form), (b, other) = pytree.tree_flatten(one), pytree.tree_flatten(two)
    return form == other and all(
        isinstance(t, Tensor) and same(t, u) if isinstance(u, Tensor) else t == u
        for t, u in zip(a, b, strict=True)
    )
