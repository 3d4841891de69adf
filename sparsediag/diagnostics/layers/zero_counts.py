"""Counts of zeros and of dead units in the outputs of a module, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def class_indices(targets: Sequence[Any]) -> Tensor:
    """Return the classes among the targets of all batches, sorted; empty if they are no indices.

    >>> class_indices([torch.tensor([2, 0]), torch.tensor([2])])
    tensor([0, 2])
    """
    indices = [
        y for y in targets if isinstance(y, Tensor) and y.dim() == 1 and not y.is_floating_point()
    ]
    if len(indices) < len(targets):
        return torch.zeros(0, dtype=torch.long)
    classes: Tensor = torch.cat(indices).long().unique()
    return classes


class ZeroCounts:
    """Running counts over the outputs of one module.

    Numbers of single samples are NaN where an output has not one row for each sample, and numbers
    of units where it is unclear which dimension holds them.

    Args:
        threshold: An output a is small if |a| <= threshold.
        relative: It is faint if |a| <= relative times the largest |a| of the same sample.
        classes: Number of classes.
    """

    def __init__(self, threshold: float, relative: float, classes: int) -> None:
        self.threshold, self.relative, self.classes = threshold, relative, classes
        self.total, self.per_sample, self.per_unit = 0, True, True
        self.sums: Tensor | int = 0  # zeros, small, faint, squares
        self.class_sums: Tensor | int = 0  # zeros and outputs of each class, (2, classes)
        # by the number of units, since a module may be shared: (units,) and (classes, units)
        self.active: dict[int, Tensor] = {}
        self.class_active: dict[int, Tensor] = {}

    @torch.no_grad()
    def add(self, output: Tensor, labels: Tensor, *, per_sample: bool, axis: int | None) -> None:
        """Count the output for a batch.

        Args:
            output: The output of the module.
            labels: Index of each sample's class among the classes, (samples,), or empty.
            per_sample: True if the output has one row for each sample.
            axis: The dimension of the units; None if unclear.
        """
        zero = output == 0
        self.total += output.numel()
        self.per_sample &= per_sample
        self.per_unit &= axis is not None
        if axis is None or output.dim() < 3:
            units, zeros = zero, torch.count_nonzero(zero)
        else:  # zeros of each unit in each row: three times faster than two passes
            positions = zero.movedim(axis, 1).flatten(2)
            per_unit = positions.sum(2, dtype=torch.int32)
            units, zeros = per_unit == positions.shape[2], per_unit.sum()
        small, faint = zeros, torch.full((), torch.nan, device=output.device)
        if self.threshold or self.per_sample:
            size = output.abs()
            small = torch.count_nonzero(size <= self.threshold)
        if self.per_sample:
            rows = size.reshape(len(output), -1)
            faint = torch.count_nonzero(rows <= self.relative * rows.amax(1, keepdim=True))
        wide = torch.promote_types(output.dtype, torch.float32)
        norms = torch.linalg.vector_norm(output.reshape(len(output), -1), dim=1, dtype=wide)
        counts = (zeros, small, faint, norms.double().square().sum())
        self.sums = self.sums + torch.stack([count.double() for count in counts])
        labels = labels.to(output.device)
        if self.per_sample and self.classes:
            in_rows = zero.reshape(len(output), -1).sum(1).double()
            both = torch.stack([in_rows, torch.full_like(in_rows, rows.shape[1])])
            table = both.new_zeros(2, self.classes)
            self.class_sums = self.class_sums + table.index_add(1, labels, both)
        if axis is not None:
            self._add_units(~units.reshape(len(output), -1), labels)

    def _add_units(self, active: Tensor, labels: Tensor) -> None:
        """Count the active units, (rows, units)."""
        width = active.shape[1]
        self.active[width] = self.active.get(width, False) | active.any(0)
        if self.per_sample and self.classes:
            empty = active.new_zeros(self.classes, width).double()
            counts = self.class_active.get(width, empty)
            self.class_active[width] = counts.index_add(0, labels, active.double())

    def merge(self, other: ZeroCounts) -> None:
        """Add the counts of other samples; those of classes stay."""
        self.total += other.total
        self.per_sample &= other.per_sample
        self.per_unit &= other.per_unit
        self.sums = self.sums + other.sums
        for width, active in other.active.items():
            self.active[width] = self.active.get(width, False) | active

    @property
    def shares(self) -> list[float]:
        """Shares of outputs that are 0, small and faint, and the root mean square."""
        *shares, mean_square = (torch.as_tensor(self.sums) / self.total).tolist()
        return [*shares, mean_square**0.5]

    @property
    def units(self) -> int:
        """Number of units; 0 where unclear."""
        return sum(self.active) if self.per_unit else 0

    @property
    def dead(self) -> float:
        """Share of the units that are 0 for every sample."""
        if not self.per_unit:
            return float("nan")
        return 1 - float(torch.cat(list(self.active.values())).double().mean())

    @property
    def class_shares(self) -> np.ndarray:
        """Shares of zeros and of dead units over the samples of each class, (2, classes)."""
        shares = np.full((2, self.classes), np.nan)
        if self.per_sample and self.classes:
            zeros, outputs = torch.as_tensor(self.class_sums)
            shares[0] = (zeros / outputs).cpu().numpy()
            if self.per_unit:
                active = torch.cat(list(self.class_active.values()), dim=1) > 0
                shares[1] = 1 - active.double().mean(1).cpu().numpy()
        return shares
