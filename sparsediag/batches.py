"""Batches: the samples that a loss is measured on, in memory and the same at every reading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]


def fixed(batches: Iterable[Batch], device: torch.device) -> list[Batch]:
    """The batches in memory on `device`.

    Anything but a list or tuple is read twice, so that a loader that shuffles or augments is
    caught before it ruins a Hessian.

    Raises:
        ValueError: If there is no batch, or a second reading gives others.

    >>> len(fixed([(torch.zeros(2, 3), torch.zeros(2))], torch.device("cpu")))
    1
    """
    kept = []
    for batch in batches:
        if len(batch) != 2 or not all(isinstance(t, Tensor) for t in batch):
            raise ValueError("a batch is no pair of tensors; need (inputs, targets)")
        kept.append((batch[0].to(device), batch[1].to(device)))
    if not kept:
        raise ValueError("no batches came; need at least one pair (inputs, targets)")
    for i, (_, y) in enumerate(kept):
        if y.dim() == 0 or len(y) == 0:
            raise ValueError(f"batch {i} has no targets; need one for each sample of a batch")
    if isinstance(batches, list | tuple):
        return kept
    again = list(batches)
    if not again:
        raise ValueError("the batches can be read only once; give a list or a loader")
    if len(again) != len(kept) or not all(
        torch.equal(a.cpu(), b.cpu())
        for one, two in zip(kept, again, strict=True)
        for a, b in zip(one, two, strict=True)
    ):
        raise ValueError(
            "two readings of the loader gave different batches: it shuffles or augments. "
            "A Problem needs fixed batches; pass shuffle=False and no augmentation."
        )
    return kept


def chunked(batches: Sequence[Batch], samples: int) -> list[Batch]:
    """The same samples in chunks of at most so many: small batches joined, large ones split.

    >>> [len(y) for _, y in chunked([(torch.zeros(n, 3), torch.zeros(n)) for n in (2, 3, 9)], 5)]
    [5, 5, 4]
    """
    chunks: list[Batch] = []
    for batch in batches:
        joined = [batch]
        fits = chunks and len(chunks[-1][1]) + len(batch[1]) <= samples
        if fits and all(a.shape[1:] == b.shape[1:] for a, b in zip(chunks[-1], batch, strict=True)):
            joined.insert(0, chunks.pop())
        parts = zip(*joined, strict=True)
        x, y = (torch.cat(part) if len(joined) > 1 else part[0] for part in parts)
        chunks += zip(x.split(samples), y.split(samples), strict=True)
    return chunks


def separate(batches: Sequence[Batch], gradient: Callable[[list[Batch]], Tensor]) -> bool:
    """Whether the gradient of some samples is the mean of their gradients apart.

    The samples are taken from all over, since their order may have a meaning.
    """
    some = batches[:: -(-len(batches) // 8)]
    each = -(-8 // len(some))
    steps = [max(1, len(y) // each) for _, y in some]
    taken = [(x[::n][:each], y[::n][:each]) for (x, y), n in zip(some, steps, strict=True)]
    few = max(chunked(taken, 8)[:2], key=lambda batch: len(batch[1]))
    half = (len(few[1]) + 1) // 2
    if half == len(few[1]):
        return sum(len(y) for _, y in batches) == 1
    whole, parts = gradient([few]), gradient(chunked([few], half))
    close = 10 * torch.finfo(whole.dtype).eps ** 0.5 * (whole.norm() + parts.norm())
    return bool((whole - parts).norm() < close)
