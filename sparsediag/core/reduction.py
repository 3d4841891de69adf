"""The reduction of a loss: what it averages over, or that it is a sum; found by measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
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
        reads_weights: True if the loss reads the weights; until that is known, too.
        doubts: Reasons to doubt it.
    """

    def __init__(self, forward: Callable[[Any], Any], loss: Loss) -> None:
        self.forward, self.loss = forward, loss
        self.count: Count | None = num_samples
        self.known, self.summed, self.doubts = False, False, list[str]()
        self.reads_weights = True

    @property
    def kind(self) -> Literal["samples", "sum", "weights"]:
        """A mean over samples, a sum, or a mean over terms with other weights, such as tokens."""
        if self.summed:
            return "sum"
        return "samples" if self.count is num_samples else "weights"

    def measure(
        self, batches: Sequence[Batch], outputs: Iterable[Any]
    ) -> tuple[list[float], list[float]]:
        """Find the reduction out from several batches; return their losses and shares.

        Args:
            batches: The samples.
            outputs: Those of each batch.

        Raises:
            NotAdditiveError: If the loss of all samples does not follow from those of batches.
        """
        losses: list[float] = []
        if self.known:
            pairs = zip(batches, outputs, strict=True)
            losses += [self.loss(z, y).item() for (_, y), z in pairs]
            return losses, self.shares(batches)
        try:
            weights = measure_weights(self._parts(batches, outputs, losses))
        except CannotMeasureError:
            self._fit(batches)
            losses += map(self.value, batches[len(losses) :])
        else:
            self.summed = weights.summed
            if not self.summed and not weights.by_samples:
                self.count = None
                return losses, _normalise(weights.values)
        self._check_sum()
        return losses, self.shares(batches)

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
            self._check_sum()
            return
        known = [self.summed] if len(batches) > 1 else []
        if len(summed := {weights.summed for weights in measured}.union(known)) > 1:
            raise NotAdditiveError
        self.summed = True in summed
        self._check_sum()
        if self.kind == "samples" and not all(weights.by_samples for weights in measured):
            self.count = None

    def shares(self, batches: Sequence[Batch]) -> list[float]:
        """Return the factors with which the losses of batches add up to the loss of all samples."""
        if self.summed or len(batches) == 1:
            return [1.0] * len(batches)
        if self.count is None:
            outputs = (self.forward(x) for x, _ in batches)
            return _normalise(measure_weights(self._parts(batches, outputs, [])).values)
        return _normalise(list(map(self.count, batches)))

    def value(self, batch: Batch) -> float:
        """Return the loss of one batch."""
        return self.loss(self.forward(batch[0]), batch[1]).item()

    def _check_sum(self) -> None:
        """Check that what the loss reads of the weights is not counted with every batch."""
        if self.summed and self.reads_weights:
            raise NotAdditiveError

    def _parts(
        self, batches: Sequence[Batch], outputs: Iterable[Any], losses: list[float]
    ) -> Iterator[Part]:
        """Yield outputs and targets of each batch as a part, and append its loss to `losses`."""
        for i, (batch, z) in enumerate(zip(batches, outputs, strict=True)):
            part = Part(self.loss, z, batch[1], samples=num_samples(batch), number=i)
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
