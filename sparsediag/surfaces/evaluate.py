"""Loss and accuracy of a network at many points of a plane, for a forward pass each.

The weights of all points are written into one buffer, each time from the centre, so rounding errors
do not add up and the weights of the caller's network stay as they are.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.batch_weights import num_labels
from sparsediag.core.batches import Batch, max_chunk, num_samples, rechunk, select_samples
from sparsediag.core.errors import unknown_name
from sparsediag.core.evaluation import BATCH_NORMS, recalibrating_batch_norm
from sparsediag.core.losses import logits, num_correct
from sparsediag.core.memory_format import MemoryFormat
from sparsediag.surfaces.plane import Plane

Statistics = Literal["fixed", "estimate"]
Precision = Literal["float32", "bfloat16"]
CHUNK = {"cpu": 3 * 2**17, "cuda": 3 * 2**22}  # input numbers in a chunk
MIN_SAMPLES = 64  # in a chunk, to estimate the statistics of batch norm


class LossEvaluator:
    """`evaluator(point)` returns the mean loss and the accuracy at `weights + point . directions`.

    Args:
        plane: The centre and the directions.
        statistics: "fixed": the running statistics of batch norm; "estimate": estimated at every
            point from the same samples, as is needed between two networks.
        precision: "bfloat16" computes the network in it, and the loss in float32.

    Raises:
        ValueError: If an option is unknown, or bfloat16 is asked for weights in float64.

    >>> from sparsediag import Problem, plane
    >>> net = torch.nn.Linear(4, 2)
    >>> problem = Problem(net, [(torch.ones(1, 4), torch.tensor([0]))])
    >>> loss, accuracy = LossEvaluator(plane(problem))(np.zeros(2))
    >>> bool(np.isclose(loss, problem.value()))
    True
    """

    def __init__(
        self, plane: Plane, *, statistics: Statistics = "fixed", precision: Precision = "float32"
    ) -> None:
        for kind, name, known in (
            ("batch-norm statistics", statistics, ("fixed", "estimate")),
            ("precision", precision, ("float32", "bfloat16")),
        ):
            if name not in known:
                raise ValueError(unknown_name(kind, name, known))
        self.plane, self.problem = plane, plane.problem
        self.statistics, self.precision = statistics, precision
        if precision != "float32" and self.problem.weights.dtype != torch.float32:
            raise ValueError(
                f"precision='{precision}': the weights are {self.problem.weights.dtype}"
            )
        self._layout = MemoryFormat.of(self.problem)
        vectors = (self.problem.weights, *plane.directions)
        flat = [self._layout.flatten(self.problem.split(v)) for v in vectors]
        self._centre, self._directions = flat[0], torch.stack(flat[1:], dim=1)
        self._buffer = torch.empty_like(self._centre)
        self._weights = self._layout.unflatten(self._buffer)
        self._chunks = self._make_chunks()
        self._labels = sum(map(num_labels, self.problem.batches))
        self.output_shape: torch.Size | None = None
        self._at_centre: tuple[float, float] | None = None
        if statistics == "fixed" and self.problem.separable:
            tolerance = 10 * torch.finfo(self._centre.dtype).eps ** 0.75 * abs(self.network_loss)
            if abs(self.centre_loss - self.network_loss) > tolerance:
                # samples do depend on each other: keep the batches of the caller
                self._chunks = self._with_shares(list(self.problem.batches))
                self._at_centre = None

    @cached_property
    def network_loss(self) -> float:
        """The loss of the network itself, in the batches and with the statistics it has."""
        return self.problem.value()

    @property
    def centre_loss(self) -> float:
        """The loss at the centre as the points are evaluated, but in full precision."""
        return self(np.zeros(len(self.plane.directions)), precision="float32")[0]

    def __call__(
        self, point: np.ndarray, *, precision: Precision | None = None
    ) -> tuple[float, float]:
        """Return loss and accuracy; accuracy is NaN where the outputs are not a row of logits each.

        Those at the centre are computed once.

        Args:
            point: Coordinates along the directions.
            precision: Instead of that of the evaluator.
        """
        low_precision = (precision or self.precision) != "float32"
        at_centre = not (low_precision or np.any(point))
        if at_centre and self._at_centre:
            return self._at_centre
        coordinates = self._centre.new_tensor(point)
        torch.addmv(self._centre, self._directions, coordinates, out=self._buffer)
        total = torch.zeros(2, dtype=torch.float64, device=self._centre.device)
        with self.problem.evaluation_mode():
            estimate = self.statistics == "estimate"
            buffers = self._estimate_statistics(low_precision) if estimate else {}
            for (x, y), share in self._chunks:
                outputs = self._forward(x, buffers, low_precision)
                total[1] += num_correct(outputs, y).to(total)
                if share:
                    loss = self.problem.reduce_loss(outputs, y, self._weights)
                    total[0] += loss.detach().to(total) * share
        scores = logits(outputs)
        self.output_shape = scores.shape if isinstance(scores, Tensor) else None
        mean, correct = total.tolist()
        values = mean, correct / self._labels if math.isfinite(mean) else math.nan
        if at_centre:
            self._at_centre = values
        return values

    def _with_shares(self, batches: list[Batch]) -> list[tuple[Batch, float]]:
        """Return batches in the layout of the weights, each with its share in the loss."""
        converted = [(self._layout.convert_inputs(x), y) for x, y in batches]
        return list(zip(converted, self.problem.shares(batches), strict=True))

    def _make_chunks(self) -> list[tuple[Batch, float]]:
        """Return the samples in chunks of about one size; the caller's batches if not separable."""
        batches, chunks = list(self.problem.batches), list[Batch]()
        if not self.problem.separable:
            return self._with_shares(batches)
        size = max_chunk(batches, CHUNK.get(self.problem.device.type, 2**18))
        size = max(size, MIN_SAMPLES if self.statistics == "estimate" else 1)
        for joined in rechunk(batches, self.problem.samples):
            n = -(-num_samples(joined) // size)
            if self.statistics == "estimate":  # chunks must be alike, even if samples are sorted
                chunks += [select_samples(joined, slice(i, None, n)) for i in range(n)]
            else:
                chunks += rechunk([joined], -(-num_samples(joined) // n))
        return self._with_shares(chunks)

    def _estimate_statistics(self, low_precision: bool) -> dict[str, Tensor]:
        """Return the buffers of batch norm for the samples at the weights in the buffer."""
        names = {
            buffer
            for name, module in self.problem.net.named_modules()
            if isinstance(module, BATCH_NORMS)
            for buffer, _ in module.named_buffers(name)
        }
        state = self.problem.frozen_state()
        buffers = {name: t.clone() for name, t in state.items() if name in names}
        seen = 0
        for chunk, _ in self._chunks:
            seen += num_samples(chunk)
            with recalibrating_batch_norm(self.problem.net, share=num_samples(chunk) / seen):
                self._forward(chunk[0], buffers, low_precision)
        return buffers

    def _forward(self, x: Any, buffers: dict[str, Tensor], low_precision: bool) -> Any:
        """Return the outputs at the weights in the buffer, in float32."""
        with torch.autocast(self._centre.device.type, torch.bfloat16, enabled=low_precision):
            frozen = self.problem.frozen_state() | buffers
            outputs = self.problem.forward(self._weights, x, frozen=frozen)
        return outputs.float() if low_precision and isinstance(outputs, Tensor) else outputs
