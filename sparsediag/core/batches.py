"""Batches: the samples that a loss is measured on, in memory and the same at every reading.

A batch is a pair (inputs, targets). Inputs are a tensor, a tuple (positional arguments of the net)
or a dict (keywords of it); targets are what the loss takes: a tensor, some of them, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, RandomSampler

Batch = tuple[Any, Any]
UNLIKE = (
    "A Problem needs fixed batches: pass shuffle=False and no augmentation, or a list of some: "
    "list(itertools.islice(loader, 8))"
)


def materialize(batches: Iterable[Any], device: torch.device) -> list[Batch]:
    """The batches in memory on `device`, as pairs.

    Anything but a list or tuple is read twice, so that a loader that shuffles or augments is
    caught before it ruins a Hessian. A dict is a pair of itself and its `labels`.

    Raises:
        ValueError: If there is no batch, one is no pair, or a second reading gives others.

    >>> len(materialize([(torch.zeros(2, 3), torch.zeros(2))], torch.device("cpu")))
    1
    """
    if isinstance(batches, DataLoader) and isinstance(batches.sampler, RandomSampler):
        raise ValueError(f"the loader shuffles (its sampler is a RandomSampler). {UNLIKE}")
    kept = [tree_map(as_pair(batch), lambda t: t.to(device)) for batch in batches]
    if not kept:
        raise ValueError("no batches came; need at least one pair (inputs, targets)")
    for i, batch in enumerate(kept):
        rows = tensors_in(batch[1]) or tensors_in(batch[0])
        if not rows or rows[0].dim() == 0 or len(rows[0]) == 0:
            raise ValueError(f"batch {i} has no targets; need one for each sample of a batch")
    if isinstance(batches, list | tuple):
        return kept
    again = 0
    for again, batch in enumerate(batches, 1):
        if again > len(kept) or not _equal(kept[again - 1], as_pair(batch)):
            again = -1
            break
    if again == 0:
        raise ValueError("the batches can be read only once; give a list or a loader")
    if again != len(kept):
        raise ValueError(
            f"two readings of the loader gave different batches: it shuffles or augments. {UNLIKE}"
        )
    return kept


def as_pair(batch: Any) -> Batch:
    """A batch as (inputs, targets).

    >>> as_pair({"input_ids": 1, "labels": 2})
    ({'input_ids': 1, 'labels': 2}, 2)
    """
    if isinstance(batch, Mapping):
        return dict(batch), batch.get("labels")
    if isinstance(batch, Tensor) or not isinstance(batch, tuple | list) or len(batch) != 2:
        size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise ValueError(
            f"a batch is a {type(batch).__name__}{size}; need pairs (inputs, targets) in a list: "
            "several inputs as ((a, b), targets), none of targets as (inputs, None), or a dict"
        )
    x, y = (dict(part) if isinstance(part, Mapping) else part for part in batch)
    if not tensors_in(x):
        raise ValueError(f"the inputs of a batch are {type(x).__name__}, and hold no tensor")
    return x, y


def tensors_in(tree: Any) -> list[Tensor]:
    """All tensors in a tensor, a tuple, a dict, or some of these in one another."""
    return [t for t in pytree.tree_leaves(tree) if isinstance(t, Tensor)]


def tree_map(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same with every tensor changed."""
    return pytree.tree_map_only(Tensor, change, tree)


def call_arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs as the positional arguments and the keywords of a net."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, tuple | list) else ((inputs,), {})


def num_samples(batch: Batch) -> int:
    """Number of samples: the length of the targets, or of the inputs where there are none."""
    return len((tensors_in(batch[1]) or tensors_in(batch[0]))[0])


def is_per_sample(batch: Batch) -> bool:
    """Return whether every tensor has one row for each sample."""
    return all(t.dim() > 0 and len(t) == num_samples(batch) for t in tensors_in(batch))


def select_samples(batch: Batch, which: slice) -> Batch:
    """Some samples of an even batch."""
    x, y = tree_map(batch, lambda t: t[which])
    return x, y


def max_chunk(batches: Sequence[Batch], numbers: int) -> int:
    """Return the number of samples with about this many input numbers.

    A net makes much more of a token than one number: of these no more than the largest batch.
    """
    most = max(map(num_samples, batches))
    inputs = tensors_in(batches[0][0])
    fits = max(1, numbers * num_samples(batches[0]) // max(1, sum(t.numel() for t in inputs)))
    return fits if all(t.is_floating_point() for t in inputs) else min(fits, most)


def rechunk(batches: Sequence[Batch], samples: int) -> list[Batch]:
    """The same samples in chunks of at most so many: small batches joined, large ones split.

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
            joined = pytree.tree_map(_cat, chunks.pop(), batch)
        starts = range(0, num_samples(joined), samples)
        chunks += [select_samples(joined, slice(i, i + samples)) for i in starts]
    return chunks


def is_separable(batches: Sequence[Batch], gradient: Callable[[list[Batch]], Tensor]) -> bool:
    """Return whether the gradient of some samples is the mean of their gradients apart.

    The samples are taken from all over, since their order may have a meaning. A net that cannot
    do with a part of a batch, as one of a graph, is one whose samples see each other.
    """
    some = batches[:: -(-len(batches) // 8)]
    each = -(-8 // len(some))
    taken = [
        select_samples(
            select_samples(b, slice(None, None, max(1, num_samples(b) // each))), slice(each)
        )
        for b in some
    ]
    few = max(rechunk(taken, 8)[:2], key=num_samples)
    half = (num_samples(few) + 1) // 2
    if half == num_samples(few):
        return sum(map(num_samples, batches)) == 1
    try:
        whole, parts = gradient([few]), gradient(rechunk([few], half))
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return False
    close = 10 * torch.finfo(whole.dtype).eps ** 0.5 * (whole.norm() + parts.norm())
    return bool((whole - parts).norm() <= close)


def _cat(one: Any, two: Any) -> Any:
    return torch.cat((one, two)) if isinstance(one, Tensor) else one


def _alike(one: Batch, two: Batch) -> bool:
    """Return whether two batches can be joined."""
    return _match(one, two, lambda t, u: t.shape[1:] == u.shape[1:] and t.dtype == u.dtype)


def _equal(one: Batch, two: Batch) -> bool:
    return _match(one, two, lambda t, u: torch.equal(t.cpu(), u.cpu()))


def _match(one: Batch, two: Batch, same: Callable[[Tensor, Tensor], bool]) -> bool:
    """Return whether two batches have the same form, the same tensors in it, and all else equal."""
    (a, form), (b, other) = pytree.tree_flatten(one), pytree.tree_flatten(two)
    return form == other and all(
        isinstance(t, Tensor) and same(t, u) if isinstance(u, Tensor) else t == u
        for t, u in zip(a, b, strict=True)
    )
