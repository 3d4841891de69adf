"""The first pass of a Problem over its data: check that its loss is a function of the weights.

It must be one finite number, the same each time, differentiable by the weights, and it must follow
from the losses of batches. Each batch goes through the net once. That the loss is repeatable and
has a gradient is tried on a few samples of the first batch, and on all of it if these cannot be
taken by themselves, or if the net drew random numbers.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import grad

from sparsediag.core import validation
from sparsediag.core.batch_weights import NotAdditiveError
from sparsediag.core.batches import Batch, is_per_sample, num_samples, rechunk, select_samples
from sparsediag.core.losses import is_sample_mean, leaves_of, loss_name
from sparsediag.core.reduction import Reduction
from sparsediag.core.rng import stream

FEW = 8  # samples on which the loss is computed again


class LossFunction(Protocol):
    """The parts of a Problem that the first pass needs."""

    @property
    def net(self) -> nn.Module:
        """The network."""

    @property
    def loss(self) -> Callable[[Any, Any], Tensor]:
        """The loss of outputs and targets."""

    @property
    def batch_norm(self) -> str:
        """The statistics that batch norms use."""

    @property
    def weights(self) -> Tensor:
        """The live weights."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""

    @property
    def empty_rows(self) -> list[str]:
        """Weights in which the mask leaves nothing of a row or of a column."""

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the tensors of a vector by name."""

    def frozen_state(self, *, copy: bool = False) -> dict[str, Tensor]:
        """Return the buffers and frozen weights; all of them as copies with `copy`."""

    def evaluation_mode(self) -> AbstractContextManager[None]:
        """Put the net into its modes."""

    def forward(
        self, weights: dict[str, Tensor], x: Any, *, frozen: dict[str, Tensor] | None = None
    ) -> Any:
        """Return the outputs for the inputs of a batch."""

    def reduce_loss(
        self,
        outputs: Any,
        targets: Any,
        weights: dict[str, Tensor] | None = None,
        *,
        frozen: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the loss of one batch's outputs."""


@dataclass
class FirstPass:
    """Find out about a loss by a first pass over its data.

    Args:
        problem: The loss.
        batches: The samples.
        trainable: Names of the weights that the loss is to be differentiated by.
        written: Names of the tensors that a forward pass may write into; those that the first
            batch wrote into are added.
        reduction: Finds out what the loss averages over.

    Attributes:
        batches: The same samples; joined into one batch if the loss needs that.
        shares: The factor of the loss of each batch in that of all samples.
        value: The loss of all samples.
        loss_name: The name of the loss.
    """

    problem: LossFunction
    batches: list[Batch]
    trainable: Collection[str]
    written: set[str]
    reduction: Reduction
    shares: list[float] = field(default_factory=lambda: [1.0])
    value: float = math.nan
    loss_name: str = ""

    def run(self) -> None:
        """Run it.

        Raises:
            ValueError: If the net does not accept the batches, or the loss is not one number, not
                finite, not repeatable, or cannot be computed from batches.
        """
        with self.problem.evaluation_mode():
            before = _random_state(self.problem.device)
            outputs, first = self._try(0)
            draws = _random_state(self.problem.device) != before
            repeated = self._repeat(first, whole=draws)
            try:
                self.value = self._weigh(outputs) if len(self.batches) > 1 else first
            except Exception:
                for number in range(1, len(self.batches)):  # says which of them fails
                    self._try(number)
                raise
        if not math.isfinite(self.value):
            raise ValueError(
                f"the loss is {self.value} at these weights; need a finite loss. {self._cause()}"
            )
        _check_equal(*repeated, torch.finfo(self.problem.weights.dtype).eps)

    def _try(self, number: int) -> tuple[Any, float]:
        """Return outputs and loss of a batch; an error says which, and if net or loss failed."""
        (x, y), shapes, problem = self.batches[number], validation.describe_shapes, self.problem
        of_batch = f" of batch {number}" * (number > 0)
        weights = problem.split(problem.weights)
        frozen = problem.frozen_state(copy=number == 0)
        with validation.explain_errors(f"the net failed on inputs {shapes(x)}{of_batch}"):
            outputs = problem.forward(weights, x, frozen=frozen)
        if number == 0:
            self.written.update(n for n, t in frozen.items() if t.is_inference() or t._version)
        about = f"outputs {shapes(outputs)} and targets {shapes(y)}{of_batch}"
        with validation.explain_errors(f"the loss failed on {about}"), warnings.catch_warnings():
            # shapes that broadcast give another loss
            warnings.filterwarnings("error", message="Using a target size")
            if number == 0:
                self._learn_kind(outputs, y)
            return outputs, problem.reduce_loss(outputs, y, weights).item()

    def _learn_kind(self, outputs: Any, targets: Any) -> None:
        """Find out whether the loss reads the weights, and whether it is a known mean."""
        self.reduction.reads_weights = self._find_weights_in_loss(outputs, targets)
        loss = self.problem.loss
        self.reduction.known = is_sample_mean(loss, outputs, [y for _, y in self.batches])
        self.loss_name = loss_name(loss, outputs)

    def _repeat(self, first: float, *, whole: bool) -> tuple[float, float]:
        """Return the loss of the same samples twice, and check that it can be differentiated.

        Args:
            first: The loss of the first batch.
            whole: Compute the loss of the whole batch, not only that of a few samples.
        """
        batch = self.batches[0]
        if not whole and num_samples(batch) > FEW and is_per_sample(batch):
            x, y = few = select_samples(batch, slice(FEW))
            with suppress(Exception):  # the whole batch says what is wrong
                weights = self.problem.split(self.problem.weights)
                outputs = self.problem.forward(weights, x)
                loss = self.problem.reduce_loss(outputs, y, weights).item()
                if math.isfinite(loss):
                    return loss, self._differentiate(few)
        return first, self._differentiate(batch)

    def _differentiate(self, batch: Batch) -> float:
        """Return the loss of a batch, and check that it has a gradient by the trainable weights."""
        (x, y), problem = batch, self.problem
        weights, frozen = self._leaves(self.trainable)
        leaves = [t for t in (*weights.values(), *frozen.values()) if t.requires_grad]
        try:
            with (
                torch.enable_grad(),
                validation.explain_errors("the loss cannot be differentiated"),
            ):
                outputs = problem.forward(weights, x, frozen=frozen)
                loss = problem.reduce_loss(outputs, y, weights, frozen=frozen)
                validation.check_gradient(outputs, loss)
                grad(loss, leaves, allow_unused=True)
        except torch.OutOfMemoryError:  # a landscape needs no gradient
            loss = problem.reduce_loss(problem.forward(weights, x), y, weights)
        return loss.item()

    def _leaves(self, names: Collection[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the weights that move and the other tensors; those named need gradients."""
        both = self.problem.split(self.problem.weights), self.problem.frozen_state()
        for tensors in both:
            for name in tensors.keys() & names:
                tensors[name] = tensors[name].detach().requires_grad_()
        return both

    def _weigh(self, outputs: Any) -> float:
        """Find the share of each batch in the loss of all samples, and return that loss.

        If it does not follow from the losses of the batches, they are joined into one.

        Args:
            outputs: Those of the first batch.
        """
        reduction = self.reduction
        rest = (reduction.forward(x) for x, _ in self.batches[1:])
        try:
            losses, self.shares = reduction.measure(self.batches, chain([outputs], rest))
        except NotAdditiveError:
            joined = rechunk(self.batches, sum(map(num_samples, self.batches)))
            if self.problem.batch_norm == "train":
                reduction.doubts.append(
                    "the loss is no mean over samples, so the batches change it"
                )
            elif len(joined) > 1:
                raise ValueError(
                    "the loss is no sum and no mean of terms with fixed weights, so it does not "
                    "follow from the losses of batches, and these have other shapes; need all "
                    "samples in one batch, or a loss with reduction='sum'"
                ) from None
            else:
                self.batches, reduction.summed = joined, False
            self.shares = reduction.shares(self.batches)
            losses = [reduction.value(batch) for batch in self.batches]
        total = 0.0
        for loss, share in zip(losses, self.shares, strict=True):
            total += loss * share if share else 0.0
        return total

    def _cause(self) -> str:
        """Return why the loss may not be finite, and what to do."""
        rows = self.problem.empty_rows
        if rows and self._is_finite_with_filled_rows():
            return (
                f"The mask empties rows of {', '.join(rows)[:100]}, and the net divides them by "
                "their own norm or deviation, 0 / 0: add a small number to it, or keep a weight in "
                "each row"
            )
        return "Did the training diverge, or are the inputs not normalised?"

    def _is_finite_with_filled_rows(self) -> bool:
        """Return whether the loss of the first batch is finite if no weight is 0."""
        problem, (x, y), generator = self.problem, self.batches[0], stream("filled rows")
        state = {**problem.split(problem.weights), **problem.frozen_state()}
        filled = {
            name: torch.where(t == 0, torch.randn(t.shape, generator=generator).to(t), t)
            if name in problem.empty_rows
            else t
            for name, t in state.items()
        }
        with problem.evaluation_mode():
            outputs = problem.forward(filled, x, frozen={})
            return bool(problem.reduce_loss(outputs, y, filled, frozen={}).isfinite())

    def _find_weights_in_loss(self, outputs: Any, targets: Any) -> bool:
        """Return whether the loss of these outputs depends on any weight in the net.

        Raises:
            ValueError: If it depends on the caller's own parameters, which never change.
        """
        parameters = dict(self.problem.net.named_parameters())
        real = {name for name, p in parameters.items() if p.is_floating_point()}
        weights, frozen = self._leaves(real)
        with torch.enable_grad():
            loss = self.problem.reduce_loss(outputs, targets, weights, frozen=frozen)
        reached = leaves_of(loss)
        for name, p in parameters.items():
            if id(p) in reached:
                raise ValueError(
                    f"it holds the parameter '{name}' itself, which stays as it is; read the "
                    "weights from the net inside the loss: sum(p.square().sum() for p in "
                    "net.parameters())"
                )
        return any(id(t) in reached for t in (*weights.values(), *frozen.values()))


def _random_state(device: torch.device) -> list[Any]:
    """Return the states of the global generators of random numbers."""
    states = [torch.get_rng_state()]
    states += [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    numpy: Any = np.random.get_state()  # noqa: NPY002
    return [*(s.tolist() for s in states), numpy[1].tolist(), numpy[2], random.getstate()]


def _check_equal(first: float, second: float, eps: float) -> None:
    """Check that two losses of the same samples differ by rounding only."""
    if abs(first - second) > eps**0.75 * max(1, abs(first)):
        raise ValueError(
            f"the same batch gave two different losses ({first:.6g}, {second:.6g}): something "
            "in the net is random. Need a net that is deterministic in evaluation mode."
        )
