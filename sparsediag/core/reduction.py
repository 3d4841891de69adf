"""The reduction of a loss: what it averages over, or that it is a sum; found by measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

from sparsediag.core.batch_weights import (
    CannotMeasureError,
    Count,
    Loss,
    NotAdditiveError,
    Part,
    Weights,
    fit_count,
    measure_weights,
    num_labels,
    num_positions,
    split_parts,
)
from sparsediag.core.batches import Batch, num_samples

UNKNOWN = (
    "what the loss averages over could not be measured, so batches are weighted by their number of "
    "samples; with one batch there is no doubt"
)


class Reduction:
    """Find out by measurement, and apply, what makes the losses of batches that of all samples.

    Args:
        forward: Returns the outputs for the inputs of a batch.
        loss: Returns the loss of outputs and targets.

    Attributes:
        count: Returns the weight of a batch; None if only the loss itself can tell.
        known: True if the loss is known to be a mean over samples, so that nothing is measured.
        summed: True if the loss is a sum, so that each batch has the factor 1.
        doubts: Reasons to doubt it.
    """

    def __init__(self, forward: Callable[[Any], Any], loss: Loss) -> None:
        self.forward, self.loss = forward, loss
        self.count: Count | None = num_samples
        self.known, self.summed, self.doubts = False, False, list[str]()

    @property
    def kind(self) -> Literal["samples", "sum", "weights"]:
        """A mean over samples, a sum, or a mean over terms with other weights, such as tokens."""
        if self.summed:
            return "sum"
        return "samples" if self.count is num_samples else "weights"

    def measure(self, batches: Sequence[Batch]) -> tuple[list[float], list[float]]:
        """Find the reduction out from several batches; return their losses and shares.

        Raises:
            NotAdditiveError: If the loss of all samples does not follow from those of batches.
        """
        if self.known:
            return [self.value(batch) for batch in batches], self.shares(batches)
        losses: list[float] = []
        try:
            weights = measure_weights(self._parts(batches, losses))
        except CannotMeasureError:
            self._fit(batches)
            return [self.value(batch) for batch in batches], self.shares(batches)
        self.summed = weights.summed
        if self.summed or weights.by_samples:
            return losses, self.shares(batches)
        self.count = None
        return losses, _normalise(weights.values)

    def measure_within(self, batches: Sequence[Batch]) -> None:
        """Check it on splits of every batch, or find it out if there is only one batch.

        Raises:
            NotAdditiveError: If it does not hold for parts of a batch.
        """
        measured: list[Weights] = []
        try:
            for x, y in () if self.known else batches:
                outputs, samples = self.forward(x), num_samples((x, y))
                if samples > 1 and self.loss(outputs, y).isfinite():
                    measured.append(measure_weights(split_parts(self.loss, outputs, y, samples)))
        except CannotMeasureError:
            if len(batches) == 1:
                self._fit(batches)
            return
        known = [self.summed] if len(batches) > 1 else []
        if len(summed := {weights.summed for weights in measured}.union(known)) > 1:
            raise NotAdditiveError
        self.summed = True in summed
        if self.kind == "samples" and not all(weights.by_samples for weights in measured):
            self.count = None

    def shares(self, batches: Sequence[Batch]) -> list[float]:
        """Return the factors with which the losses of batches add up to the loss of all samples."""
        if self.summed or len(batches) == 1:
            return [1.0] * len(batches)
        if self.count is None:
            return _normalise(measure_weights(self._parts(batches)).values)
        return _normalise(list(map(self.count, batches)))

    def value(self, batch: Batch) -> float:
        """Return the loss of one batch."""
        return self.loss(self.forward(batch[0]), batch[1]).item()

    def _parts(self, batches: Sequence[Batch], losses: list[float] | None = None) -> Iterator[Part]:
        for i, (x, y) in enumerate(batches):
            part = Part(self.loss, self.forward(x), y, samples=num_samples((x, y)), number=i)
            if losses is not None:
                losses.append(part.value)
            yield part

    def _positions(self, batch: Batch) -> float:
        return num_positions(self.loss, self.forward(batch[0]), batch[1])

    def _fit(self, batches: Sequence[Batch]) -> None:
        """Choose among known counts, since the loss of two batches at once cannot be computed."""
        without_first = partial(num_labels, skip=1)
        counts: list[Count] = [num_labels, without_first, num_samples, self._positions]
        try:
            count = fit_count(batches, self.value, counts)
        except CannotMeasureError:
            self.doubts += [UNKNOWN] * (len(batches) > 1)
            return
        self.summed = count is None
        if count and any(count(batch) != num_samples(batch) for batch in batches):
            self.count = count


def _normalise(weights: Sequence[float]) -> list[float]:
    total = sum(weights)
    return [weight / total if total else math.nan for weight in weights]
