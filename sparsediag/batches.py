"""Batches: the samples that a loss is measured on, in memory and the same at every reading."""

from __future__ import annotations

from collections.abc import Iterable

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
    kept = [(x.to(device), y.to(device)) for x, y in batches]
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
