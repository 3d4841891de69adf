"""Counts of zeros and of dead units among the outputs of a module, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def classes(targets: Sequence[Any]) -> Tensor:
    """The classes among the targets of all batches, sorted; none where they are no indices.

    >>> classes([torch.tensor([2, 0]), torch.tensor([2])])
    tensor([0, 2])
    """
    indices = [
        y for y in targets if isinstance(y, Tensor) and y.dim() == 1 and not y.is_floating_point()
    ]
    if len(indices) < len(targets):
        return torch.zeros(0, dtype=torch.long)
    found: Tensor = torch.cat(indices).long().unique()
    return found


class Tally:
    """Counts of a module's outputs.

    Where they cannot be told apart by samples, what is said of single samples is nan, and so is
    what is said of units where it is not clear which dimension is theirs.

    Args:
        threshold: Up to this |a| is small.
        relative: Up to this share of the largest |a| of the same sample, |a| is faint.
        classes: Number of classes.
    """

    def __init__(self, threshold: float, relative: float, classes: int) -> None:
        self.threshold, self.relative, self.classes = threshold, relative, classes
        self.total, self.apart, self.known = 0, True, True
        self.sums: Tensor | int = 0  # zeros, small, faint, squares
        self.by_class: Tensor | int = 0  # zeros and numbers, (2, classes)
        self.alive: dict[int, Tensor] = {}  # by the number of units: a module may be shared
        self.woken: dict[int, Tensor] = {}  # likewise, (classes, units)

    def add(self, a: Tensor, labels: Tensor, *, apart: bool, axis: int | None) -> None:
        """Count what came out for a batch.

        Args:
            a: The output.
            labels: Places among the classes, (samples,), or none.
            apart: Whether each row is one sample's.
            axis: The dimension of the units, if it is known.
        """
        size, awake = a.abs(), a != 0
        self.total += a.numel()
        self.apart &= apart
        self.known &= axis is not None
        faint = torch.full((), torch.nan, device=a.device)
        if self.apart:
            rows = size.reshape(len(a), -1)
            faint = (rows <= self.relative * rows.amax(1, keepdim=True)).sum()
        zeros, small = (~awake).sum(), (size <= self.threshold).sum()
        squares = torch.linalg.vector_norm(a, dtype=torch.float64).square()
        self.sums = self.sums + torch.stack([t.double() for t in (zeros, small, faint, squares)])
        labels = labels.to(a.device)
        if self.apart and self.classes:
            silent = (~awake).reshape(len(a), -1).sum(1).double()
            counts = torch.stack([silent, torch.full_like(silent, rows.shape[1])])
            table = counts.new_zeros(2, self.classes)
            self.by_class = self.by_class + table.index_add(1, labels, counts)
        if axis is not None:
            units = awake.movedim(axis, 1).flatten(2).any(2) if a.dim() > 2 else awake
            self._units(units.reshape(len(a), -1), labels)

    def _units(self, units: Tensor, labels: Tensor) -> None:
        """Count which of them wake, (rows, units)."""
        width = units.shape[1]
        self.alive[width] = self.alive.get(width, False) | units.any(0)
        if self.apart and self.classes:
            before = self.woken.get(width, units.new_zeros(self.classes, width).double())
            self.woken[width] = before.index_add(0, labels, units.double())

    @property
    def shares(self) -> list[float]:
        """Of outputs that are exactly 0, small, and faint; and the root of the mean square."""
        *shares, square = (torch.as_tensor(self.sums) / self.total).tolist()
        return [*shares, square**0.5]

    @property
    def units(self) -> int:
        """Number of units; 0 where they are not known."""
        return sum(self.alive) if self.known else 0

    @property
    def dead(self) -> float:
        """Share of the units that no sample wakes."""
        if not self.known:
            return float("nan")
        return 1 - float(torch.cat(list(self.alive.values())).double().mean())

    @property
    def of_classes(self) -> np.ndarray:
        """For each class, the share of zeros, and of units that none of its samples wakes."""
        found = np.full((2, self.classes), np.nan)
        if self.apart and self.classes:
            zeros, numbers = torch.as_tensor(self.by_class)
            found[0] = (zeros / numbers).cpu().numpy()
        if self.known and self.apart and self.classes:
            woken = torch.cat(list(self.woken.values()), dim=1) > 0
            found[1] = 1 - woken.double().mean(1).cpu().numpy()
        return found
