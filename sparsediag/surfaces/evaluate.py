"""Loss and accuracy of a network at many places, at the cost of a forward pass each.

The weights of all places are written into one buffer, each time from the centre, so nothing drifts
and nothing of the caller's is touched.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.batches import Batch, max_chunk, num_samples, rechunk, select_samples
from sparsediag.core.errors import unknown_name
from sparsediag.core.evaluation import recalibrating_batch_norm
from sparsediag.core.losses import num_correct
from sparsediag.core.memory_format import MemoryFormat
from sparsediag.surfaces.plane import Plane

NORMS = torch.nn.modules.batchnorm._BatchNorm
Statistics = Literal["fixed", "estimate"]
Precision = Literal["float32", "bfloat16"]
CHUNK = {"cpu": 3 * 2**17, "cuda": 3 * 2**22}  # numbers of input at a time
FEWEST = 64  # samples at a time, for batch norm's statistics


class LossEvaluator:
    """`evaluator(place)` is the mean loss and the accuracy at `weights + place . directions`.

    Args:
        plane: The centre and the directions.
        statistics: "fixed": batch norm's running statistics; "estimate": measured anew at every
            place on the same samples, as is due between two nets.
        precision: "bfloat16" computes the net in it, and the loss in float32.

    >>> from sparsediag import Problem, plane
    >>> net = torch.nn.Linear(4, 2)
    >>> problem = Problem(net, [(torch.ones(1, 4), torch.tensor([0]))])
    >>> loss, accuracy = LossEvaluator(plane(problem))(np.zeros(2))
    >>> bool(np.isclose(loss, problem.value()))
    True
    """

    def __init__(
        self,
        plane: Plane,
        *,
        statistics: Statistics = "fixed",
        precision: Precision = "float32",
    ) -> None:
        for word, asked, known in (
            ("batch-norm statistics", statistics, ("fixed", "estimate")),
            ("precision", precision, ("float32", "bfloat16")),
        ):
            if asked not in known:
                raise ValueError(unknown_name(word, asked, known))
        self.problem = problem = plane.problem
        self.statistics, self.precision = statistics, precision
        self.layout = MemoryFormat.of(problem)
        if precision != "float32" and problem.weights.dtype != torch.float32:
            raise ValueError(f"precision='{precision}': the weights are {problem.weights.dtype}")
        self._norms = {
            buffer
            for name, m in problem.net.named_modules()
            if isinstance(m, NORMS)
            for buffer, _ in m.named_buffers(name)
        }
        flat = [self.layout.flatten(problem.split(v)) for v in (problem.weights, *plane.directions)]
        self._centre, self._directions = flat[0], torch.stack(flat[1:], dim=1)
        self._buffer = torch.empty_like(self._centre)
        self._weights = self.layout.unflatten(self._buffer)
        self._chunks = self._laid(self._parts())
        if statistics == "fixed" and precision == "float32" and problem.separable:
            self._buffer.copy_(self._centre)
            here, own = self._mean()[0], problem.value()
            if abs(here - own) > 10 * torch.finfo(self._centre.dtype).eps ** 0.75 * abs(own):
                self._chunks = self._laid(list(problem.batches))  # a mean over something else

    def __call__(self, place: np.ndarray) -> tuple[float, float]:
        """Loss and accuracy; accuracy is nan where the outputs are not a row of scores each."""
        at = self._centre.new_tensor(place)
        torch.addmv(self._centre, self._directions, at, out=self._buffer)
        return self._mean()

    def _mean(self) -> tuple[float, float]:
        """Loss and accuracy at the weights in the buffer."""
        total = torch.zeros(2, dtype=torch.float64, device=self._centre.device)
        with torch.inference_mode(), self.problem.evaluation_mode():
            norms = self._measured() if self.statistics == "estimate" else {}
            for chunk in self._chunks:
                x, y = chunk
                outputs = self._outputs(x, norms)
                loss = self.problem.reduce_loss(outputs, y).double() * num_samples(chunk)
                total += torch.stack([loss, num_correct(outputs, y)]).to(total)
        mean, share = (total / self.problem.samples).tolist()
        return mean, share if math.isfinite(mean) else math.nan

    def _laid(self, batches: list[Batch]) -> list[Batch]:
        return [(self.layout.convert_inputs(x), y) for x, y in batches]

    def _parts(self) -> list[Batch]:
        """The samples in chunks of about one size, or in their batches if those must stay whole."""
        batches, parts = list(self.problem.batches), list[Batch]()
        if not self.problem.separable:
            return batches
        most = max_chunk(batches, CHUNK.get(self.problem.device.type, 2**18))
        most = max(most, FEWEST if self.statistics == "estimate" else 1)
        for joined in rechunk(batches, self.problem.samples):
            n = -(-num_samples(joined) // most)
            if self.statistics == "estimate":  # samples may come sorted, and chunks must be alike
                parts += [select_samples(joined, slice(i, None, n)) for i in range(n)]
            else:
                parts += rechunk([joined], -(-num_samples(joined) // n))
        return parts

    def _measured(self) -> dict[str, Tensor]:
        """Batch norm's statistics of the samples at this place."""
        norms = {n: t.clone() for n, t in self.problem.frozen_state().items() if n in self._norms}
        seen = 0
        for chunk in self._chunks:
            seen += num_samples(chunk)
            with recalibrating_batch_norm(self.problem.net, share=num_samples(chunk) / seen):
                self._outputs(chunk[0], norms)
        return norms

    def _outputs(self, x: Any, norms: dict[str, Tensor]) -> Any:
        lower = self.precision != "float32"
        with torch.autocast(self._centre.device.type, dtype=torch.bfloat16, enabled=lower):
            outputs = self.problem.forward(
                self._weights, x, frozen=self.problem.frozen_state() | norms
            )
        return outputs.float() if lower and isinstance(outputs, Tensor) else outputs
