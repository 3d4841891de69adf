"""Sweep: the loss and the accuracy of a net at many places, at the cost of a bare forward pass.

The weights of all places are written into one buffer, each time from the centre, so nothing drifts
and nothing of the caller's is touched.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sparsediag.batches import Batch, chunked
from sparsediag.errors import unknown
from sparsediag.layout import Layout
from sparsediag.modes import measuring
from sparsediag.planes import Plane

Statistics = Literal["fixed", "estimate"]
Precision = Literal["float32", "bfloat16"]
CHUNK = {"cpu": 3 * 2**17, "cuda": 3 * 2**22}  # numbers of input at a time


class Sweep:
    """`sweep(place)` is the mean loss and the accuracy at `weights + place . directions`.

    Args:
        plane: The centre and the directions.
        statistics: "fixed": batch norm's running statistics; "estimate": measured anew at every
            place on the same samples, as is due between two nets.
        precision: "bfloat16" computes the net in it, and the loss in float32.

    >>> from sparsediag import Problem, plane
    >>> net = torch.nn.Linear(4, 2)
    >>> problem = Problem(net, [(torch.ones(1, 4), torch.tensor([0]))])
    >>> loss, accuracy = Sweep(plane(problem))(np.zeros(2))
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
                raise ValueError(unknown(word, asked, known))
        self.problem = problem = plane.problem
        self.statistics, self.precision = statistics, precision
        self.layout = Layout.of(problem)
        kind = problem.device.type
        chunks = list(problem.batches)
        if problem.separable:
            chunks = chunked(chunks, max(1, CHUNK.get(kind, 2**18) // chunks[0][0][0].numel()))
        self._chunks: list[Batch] = [(self.layout.images(x), y) for x, y in chunks]
        flat = [self.layout.flat(problem.split(v)) for v in (problem.weights, *plane.directions)]
        self._centre, self._directions = flat[0], torch.stack(flat[1:], dim=1)
        self._buffer = torch.empty_like(self._centre)
        self._weights = self.layout.views(self._buffer)

    def __call__(self, place: np.ndarray) -> tuple[float, float]:
        """Loss and accuracy; accuracy is nan where the outputs are not a row of scores each."""
        at = torch.from_numpy(place).to(self._centre)
        torch.addmv(self._centre, self._directions, at, out=self._buffer)
        total = torch.zeros(2, dtype=torch.float64, device=self._centre.device)
        with torch.inference_mode(), self.problem.modes(), self._cast():
            still = self._measured() if self.statistics == "estimate" else None
            for x, y in self._chunks:
                outputs = self.problem.call(self._weights, x, still=still)
                if self.precision != "float32":
                    outputs = outputs.float()
                total += torch.stack([self.problem.scalar(outputs, y) * len(y), hits(outputs, y)])
        loss, right = (total / self.problem.samples).tolist()
        return loss, right

    def _measured(self) -> dict[str, Tensor]:
        """What does not move, with batch norm's statistics those of the samples at this place."""
        still, seen = self.problem.still(), 0
        for x, y in self._chunks:
            seen += len(y)
            with measuring(self.problem.net, share=len(y) / seen):
                self.problem.call(self._weights, x, still=still)
        return still

    def _cast(self) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self._centre.device.type, dtype=torch.bfloat16)


def hits(outputs: Any, targets: Tensor) -> Tensor:
    """Number of samples whose highest score is that of their class, nan where there is no such."""
    scores = isinstance(outputs, Tensor) and outputs.dim() == 2 and targets.dim() == 1
    if not scores or targets.is_floating_point():
        return torch.full((), torch.nan, dtype=torch.float64, device=targets.device)
    right: Tensor = (outputs.argmax(dim=1) == targets).sum()
    return right.double()
