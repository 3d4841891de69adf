"""Weights of batches: how the loss of all samples follows from the losses of batches of them.

A loss may average over samples, over tokens that are not ignored, or over class weights; or it may
be a sum. If it is a mean of terms with fixed weights, which add up to r in a batch R and to a in
another batch A, then

    L(R and A together) = s L(R) + (1 - s) L(A),  s = r / (r + a).

So s is the ratio of two gradients by the outputs of R, and a / r = (1 - s) / s. For a sum, both
factors are 1. This takes a few calls of the loss for each batch, and no pass through the net.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sparsediag.core.batches import (
    Batch,
    concatenate,
    is_per_sample,
    num_samples,
    select_samples,
    tensors_in,
    tree_map,
)
from sparsediag.core.rng import stream

Loss = Callable[[Any, Any], Tensor]
Count = Callable[[Batch], float]
IGNORED = -100  # the target that torch's losses and Hugging Face's models leave out
GOLDEN = (5**0.5 - 1) / 2  # its multiples modulo 1 are spread evenly over [0, 1]
MAX_TESTED = 4  # batches that are split to find out what the loss counts
SINGLE = 10 * torch.finfo(torch.float32).eps ** 0.75  # nets may round to float32 inside


class NotAdditiveError(Exception):
    """The loss of all samples does not follow from the losses of batches of them."""


class CannotMeasureError(Exception):
    """The loss cannot be computed for two batches at once, or for a part of one."""


@dataclass(frozen=True)
class Weights:
    """The weights of some batches in a loss.

    Attributes:
        values: Sum of the weights of the terms of each batch, up to a common factor.
        summed: True if the loss is a sum of terms, not a mean.
        by_samples: True if it is a mean, and the values are proportional to the number of samples.
    """

    values: list[float]
    summed: bool
    by_samples: bool


class Part:
    """The outputs and targets of some samples, and their loss.

    Its gradient is taken beside the outputs, since a loss may be flat at those of a fresh or of a
    trained net. The `number` of a part makes its change another one than that of the others: at
    equal losses, a root of a mean would look like a mean.
    """

    def __init__(
        self, loss: Loss, outputs: Any, targets: Any, *, samples: int, number: int
    ) -> None:
        self.loss, self.targets, self.samples, self.number = loss, targets, samples, number
        value = loss(outputs, targets)
        self.value, self.dtype = value.item(), value.dtype
        self.outputs = tree_map(outputs, Tensor.detach)

    @cached_property
    def beside(self) -> Any:
        """The outputs, changed, so that parts have other losses; those in [0, 1] stay there."""
        share = self.number * GOLDEN % 1

        def change(t: Tensor) -> Tensor:
            if not t.is_floating_point():
                return t
            outside = bool(((t < 0) | (t > 1)).any())
            between = torch.lerp(t, _spread(t, self.number), 0.1 + 0.8 * share)
            return between * (1 + 3 * share * outside)

        return tree_map(self.outputs, change)

    @cached_property
    def slope(self) -> tuple[float, list[Tensor], float]:
        """The loss beside the outputs, its gradient by them, and the square of its norm."""
        value, slopes = _slope(self.loss, self.beside, self.targets)
        return value, slopes, _dot(slopes, slopes)

    @property
    def moves(self) -> bool:
        """True if the gradient is finite and not 0."""
        return 0 < self.slope[2] < math.inf

    @cached_property
    def tolerance(self) -> float:
        """Relative rounding error of a factor."""
        dtypes = {self.dtype, *(t.dtype for t in self.slope[1])}
        return float(10 * max(torch.finfo(dtype).eps for dtype in dtypes) ** 0.75)

    @cached_property
    def summed(self) -> bool:
        """True if these samples, taken twice, have twice the gradient; False if they have it once.

        Raises:
            NotAdditiveError: If neither holds.
        """
        factor = self._together(self)[0] if self.moves else 0.5
        if min(abs(factor - 1), abs(factor - 0.5)) > self.tolerance:
            raise NotAdditiveError
        return factor > 0.75

    def ratio(self, other: Part) -> float:
        """Return the weight of another part divided by the weight of this one.

        Raises:
            NotAdditiveError: If the loss of both together does not follow from the two losses.
        """
        if other is self:
            return 1.0
        mine, theirs, beside = self._together(other)
        mine = self.samples / (self.samples + other.samples) if math.isnan(mine) else mine
        rest = 1.0 if self.summed else 1 - mine
        both = self.loss(*concatenate(*((p.outputs, p.targets) for p in (self, other)))).item()
        wrong = abs(theirs - rest) > self.tolerance
        wrong |= self.summed and abs(mine - 1) > self.tolerance
        for value, one, two in (
            (both, self.value, other.value),
            (beside, self.slope[0], other.slope[0]),
        ):  # a part that does not count may have the loss NaN
            expected = mine * one + (rest * two if abs(rest) > self.tolerance else 0.0)
            wrong |= not abs(value - expected) <= self.tolerance * (abs(value) + abs(mine * one))
        if wrong:
            raise NotAdditiveError
        return 1.0 if self.summed else max(0.0, rest if math.isnan(theirs) else theirs) / mine

    def _together(self, other: Part) -> tuple[float, float, float]:
        """Return the factors of both gradients in that of both parts, NaN if 0, and its loss."""
        at, targets = concatenate((self.beside, self.targets), (other.beside, other.targets))
        value, slopes = _slope(self.loss, at, targets)
        cuts = [len(t) for t in self.slope[1]]
        first = [t[:n] for t, n in zip(slopes, cuts, strict=True)]
        second = [t[n:] for t, n in zip(slopes, cuts, strict=True)]
        return self._factor(first), other._factor(second), value

    def _factor(self, slopes: Sequence[Tensor]) -> float:
        _, gradient, squared_norm = self.slope
        if not self.moves:
            return math.nan
        factor = _dot(slopes, gradient) / squared_norm
        misfit = [t - factor * u for t, u in zip(slopes, gradient, strict=True)]
        if not (
            factor > 0 and _dot(misfit, misfit) <= (self.tolerance * factor) ** 2 * squared_norm
        ):
            raise NotAdditiveError
        return factor


def measure_weights(parts: Iterable[Part]) -> Weights:
    """Return the weights of parts, from the loss of each together with that of a reference.

    Raises:
        NotAdditiveError: If the loss is no sum, and no mean of terms with fixed weights.
        CannotMeasureError: If the loss cannot be computed for two parts at once.
    """
    reference: Part | None = None
    waiting, ratios, samples = list[Part](), list[float](), list[int]()
    for part in parts:
        samples.append(part.samples)
        waiting.append(part)
        with _cannot_measure():
            reference = reference or (part if part.moves else None)
            if reference:
                ratios += map(reference.ratio, waiting)
                waiting = []
    with _cannot_measure():  # no loss has a gradient
        reference = reference or waiting[0]
        ratios += map(reference.ratio, waiting)
        tolerance = reference.tolerance / 10
        by_samples = not reference.summed and all(
            abs(ratio * reference.samples - n) <= tolerance * n
            for ratio, n in zip(ratios, samples, strict=True)
        )
        return Weights(ratios, reference.summed, by_samples)


def fit_count(
    batches: Sequence[Batch], loss: Callable[[Batch], float], counts: Sequence[Count]
) -> Count | None:
    """Return the first of `counts` that the loss averages over, judged by parts of batches.

    It is for losses that `measure_weights` cannot judge. None stands for a sum.

    Args:
        batches: The samples.
        loss: Returns the loss of a batch or of a part of one, by a pass through the net.
        counts: Functions that return the weight of a batch.

    Raises:
        NotAdditiveError: If no count fits, and the loss is no sum.
        CannotMeasureError: If no batch can be split.
    """
    few = sorted(batches, key=lambda b: num_labels(b) / _labels(b).numel())[:MAX_TESTED]
    by_rows = _fitting([*counts, None], [(b, _split_rows(b)) for b in few], loss)
    if by_rows == []:
        raise NotAdditiveError
    fitting = by_rows or []
    if len(fitting) != 1 and _may_ignore(batches):
        splits = [(b, _split_labels(b)) for b in few]
        fitting = _fitting(fitting or [*counts, None], splits, loss) or fitting
    if not fitting:
        raise CannotMeasureError
    return fitting[0]


def _fitting(
    counts: Sequence[Count | None],
    splits: Iterable[tuple[Batch, list[Batch]]],
    loss: Callable[[Batch], float],
) -> list[Count | None] | None:
    """Return the counts that explain the loss of every split batch; None if none could be split."""
    fitting = None
    for batch, parts in splits:
        with suppress(CannotMeasureError), _cannot_measure():
            total, *each = map(loss, (batch, *parts))
            if parts and math.isfinite(total):
                error = SINGLE * max(map(abs, (total, *each)))
                fitting = [
                    count
                    for count in (counts if fitting is None else fitting)
                    if abs(_expected(count, parts, each) - total) <= error
                ]
    return fitting


def _expected(count: Count | None, parts: Sequence[Batch], losses: Sequence[float]) -> float:
    """Return the loss of some parts together: their sum, or their mean weighted by `count`."""
    if count is None:
        return sum(losses)
    weights = [count(part) for part in parts]
    total = sum(w * loss for w, loss in zip(weights, losses, strict=True) if w)
    return total / sum(weights) if any(weights) else math.nan


def num_labels(batch: Batch, *, skip: int = 0) -> int:
    """Return the number of targets that are not ignored, without the first `skip` of each row.

    >>> num_labels((torch.zeros(2, 3), torch.tensor([[1, 2, -100], [3, -100, -100]])))
    3
    """
    labels = _labels(batch)
    if labels.is_floating_point():
        return num_samples(batch)
    return int((labels[:, skip:] if labels.dim() > 1 else labels).ne(IGNORED).sum())


def num_positions(loss: Loss, outputs: Any, targets: Any) -> int:
    """Return how many numbers of outputs of this shape the loss depends on."""
    outputs = tree_map(outputs, lambda t: _spread(t, 0) if t.is_floating_point() else t)
    return sum(int((t != 0).sum()) for t in _slope(loss, outputs, targets)[1] if t.dim())


def split_parts(loss: Loss, outputs: Any, targets: Any, samples: int) -> list[Part]:
    """Split the samples of a batch at random into two uneven parts.

    The sizes have no common factor with the number of samples, so that few ignored targets cannot
    be shared out in proportion.

    Raises:
        CannotMeasureError: If outputs and targets have not one row for each sample.
    """
    if not is_per_sample((outputs, targets)) or num_samples((outputs, targets)) != samples:
        raise CannotMeasureError
    size = next(k for k in range(-(-2 * samples // 5), samples + 1) if math.gcd(k, samples) == 1)
    order = torch.randperm(samples, generator=stream("split of a batch")).tolist()
    with _cannot_measure():
        return [
            Part(loss, *select_samples((outputs, targets), rows), samples=len(rows), number=i)
            for i, rows in enumerate((order[:size], order[size:]))
        ]


@contextmanager
def _cannot_measure() -> Iterator[None]:
    """Turn the errors of a net or a loss on other batches into a CannotMeasureError."""
    try:
        yield
    except (torch.OutOfMemoryError, NotAdditiveError):
        raise
    except Exception as error:
        raise CannotMeasureError from error


def _labels(batch: Batch) -> Tensor:
    return (tensors_in(batch[1]) or tensors_in(batch[0]))[0]


def _split_rows(batch: Batch) -> list[Batch]:
    """Return the third of the samples with the fewest labels, and the others; [] for one sample."""
    samples = num_samples(batch)
    if samples < 2 or not is_per_sample(batch):
        return []
    rows = _labels(batch).ne(IGNORED).reshape(samples, -1).sum(1).argsort().tolist()
    size = max(1, samples // 3)
    return [select_samples(batch, rows[:size]), select_samples(batch, rows[size:])]


def _may_ignore(batches: Sequence[Batch]) -> bool:
    """Return whether labels may be set to `IGNORED`; a GPU does not survive a wrong label."""
    labels = [_labels(batch) for batch in batches]
    return all(t.device.type == "cpu" for t in labels) or any(t.eq(IGNORED).any() for t in labels)


def _split_labels(batch: Batch) -> list[Batch]:
    """Return a batch with the first third of its labels, and with the others; [] without any."""
    x, labels = batch
    if not (isinstance(x, dict) and isinstance(labels, Tensor) and labels.dim() == 2):
        return []
    first = torch.arange(labels.shape[1], device=labels.device) < -(-labels.shape[1] // 3)
    halves = [labels.masked_fill(ignored, IGNORED) for ignored in (~first, first)]
    return [({**x, "labels": k}, k) for k in halves]


def _slope(loss: Loss, outputs: Any, targets: Any) -> tuple[float, list[Tensor]]:
    """Return a loss and its gradient by the outputs that are real numbers."""
    with torch.enable_grad():
        outputs = tree_map(outputs, lambda t: t.detach().requires_grad_(t.is_floating_point()))
        leaves = [t for t in tensors_in(outputs) if t.requires_grad]
        value = loss(outputs, targets)
        if not (leaves and value.requires_grad):
            return value.item(), [torch.zeros_like(t) for t in leaves]
        slopes = torch.autograd.grad(value, leaves, materialize_grads=True)
    return value.item(), list(slopes)


def _dot(one: Sequence[Tensor], two: Sequence[Tensor]) -> float:
    return float(sum((t.double() * u.double()).sum() for t, u in zip(one, two, strict=True)))


def _spread(like: Tensor, number: int) -> Tensor:
    """Return numbers in [0, 1) that are spread like random ones."""
    steps = torch.arange(1, like.numel() + 1, dtype=torch.float64, device=like.device)
    return ((steps * GOLDEN + number * 2**0.5) % 1).to(like.dtype).view(like.shape)
