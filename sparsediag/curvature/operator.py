"""Matrices of second derivatives that are known by their products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from sparsediag.core.batch_loss import BatchLoss, Matrix
from sparsediag.core.batches import Batch, num_samples, rechunk
from sparsediag.core.coordinates import accumulate
from sparsediag.core.device import free_memory
from sparsediag.core.double_backward import DoubleBackward
from sparsediag.core.errors import unknown_name
from sparsediag.core.filter_norms import filter_norms
from sparsediag.core.memory_format import MemoryFormat
from sparsediag.core.problem import Problem
from sparsediag.core.twice_differentiable import twice_differentiable
from sparsediag.curvature.chunks import chunk_size, few_samples, out_of_memory
from sparsediag.curvature.cuda_graph import GraphReplay, capture, capture_stream, use_stream
from sparsediag.curvature.engines import ENGINES, Engine, Mode, check_direction, choose_mode
from sparsediag.curvature.finite_differences import DifferenceCheck

MATRICES = ("hessian", "gauss-newton", "fisher")


class Curvature:
    """The Hessian of a problem's loss (or its relatives), in live coordinates: `curvature(v)`.

    Hessian-vector products: Pearlmutter, Neural Computation 6, 1994; with the Gauss-Newton matrix:
    Schraudolph, Neural Computation 14, 2002, section 3.

    The samples are processed in chunks, each weighted by its share in the loss. The parts of the
    forward and backward pass that a product needs are kept between products as far as `memory`
    allows, and recomputed beyond it. If memory runs out, chunks are halved. On a GPU the third and
    later products are replayed from a CUDA graph if that gives the same result.

    Args:
        problem: The loss.
        matrix: "hessian"; "gauss-newton", J^T (d2L/dz2) J with z the network's outputs; or
            "fisher", the empirical one, the mean outer product of each sample's gradient.
        norm: "filter" measures weights in units of the norm of their filter, and keeps biases and
            batch norms fixed: the matrix is D H D, which does not depend on the scale of a filter.
        mode: How products are computed. "tape" (see `tape.py`) costs about two gradients;
            "retained" is double backward on a kept graph; "compiled" is double backward through
            torch.compile. Each is first checked against double backward on a few samples. "auto"
            takes the tape for networks with convolutions, whose double backward is slow, and
            "retained" for others.
        memory: GiB that may be kept between products (default: half of the free memory).
        chunk: Samples at a time, if they are independent (default: as many as keep a
            CPU busy, or fit on a GPU).

    Attributes:
        mode: The mode in use.
        gradient: The gradient of the mean loss, in the same units, (size,).
        products: Number of products so far.
        doubts: Reasons to doubt the matrix itself.

    Raises:
        ValueError: If the matrix or mode is unknown, a number is not positive, or the mode fails
            on this network.

    >>> import torch.nn.functional as F
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> hessian = Curvature(Problem(net, [(torch.ones(4, 1), torch.ones(4, 1))], loss=F.mse_loss))
    >>> hessian(torch.ones(1))
    tensor([2.])
    """

    def __init__(
        self,
        problem: Problem,
        *,
        matrix: Matrix = "hessian",
        norm: Literal["none", "filter"] = "none",
        mode: Mode = "auto",
        memory: float | None = None,
        chunk: int | None = None,
    ) -> None:
        if matrix not in MATRICES:
            raise ValueError(unknown_name("matrix", matrix, MATRICES))
        if norm not in ("none", "filter"):
            raise ValueError(unknown_name("norm", norm, ("none", "filter")))
        if mode not in ("auto", *ENGINES):
            raise ValueError(unknown_name("mode of products", mode, ("auto", *ENGINES)))
        if problem.weights.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"the weights are {problem.weights.dtype}; need float32 or float64 for second "
                "derivatives, as net.float() has them"
            )
        if memory is not None and not memory >= 0:
            raise ValueError(f"memory={memory}: need 0 GiB or more")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk={chunk}: need 1 sample or more at a time")
        self.problem, self.matrix, self.norm, self.products = problem, matrix, norm, 0
        self.doubts: list[str] = []
        self._engines: list[Engine | None] = []
        self._norms = filter_norms(problem) if norm == "filter" else None
        self._divide(list(problem.batches))
        probe = few_samples(problem)
        if matrix == "fisher" and not (problem.separable and problem.reduction != "weights"):
            raise ValueError(
                "matrix='fisher' needs a loss that is a mean, or a sum, over separate samples"
            )
        self.doubts += problem.doubts
        self._layout, self._stream = MemoryFormat.of(problem), capture_stream(problem.device)
        room = free_memory(problem.device) / 2
        self._budget = room if memory is None else memory * 2**30
        with self._context():
            self._weights = self._layout.convert_weights(problem.split(problem.weights))
            try:
                self.mode, doubts = choose_mode(
                    problem, self._loss(probe), self._weights, mode=mode, matrix=matrix
                )
                self.doubts += doubts
                if problem.separable:
                    room = min(room, self._budget or room)
                    batches = [batch for batch, _ in self._chunks]
                    size = chunk or chunk_size(batches, problem.device.type, room, self._nbytes)
                    self._divide(rechunk(batches, size))
            except torch.OutOfMemoryError as error:
                raise out_of_memory(problem.device, num_samples(probe)) from error
            self._halve_until_fits(self._make_engines)

    def __repr__(self) -> str:
        return f"Curvature({self.problem}, matrix={self.matrix!r}, mode={self.mode!r})"

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the matrix times `vector`, (size,)."""
        self.problem.live.check(vector)
        self.products += 1
        with self._context():
            return self._halve_until_fits(lambda: self._replay(self._product, vector))

    def check(self, direction: Tensor) -> list[str]:
        """Compare the product with a direction, (size,), with differences of gradients.

        Returns:
            A doubt if they disagree on a few samples; none if it is known already.
        """
        if self.doubts:
            return []
        check = DifferenceCheck(self.problem)
        vector = self._scale(direction)
        return check_direction(check, vector, mode=self.mode, matrix=self.matrix)

    @property
    def nbytes(self) -> int:
        """Memory held between products."""
        stored_bytes: int = sum(engine.nbytes for engine in self._engines if engine)
        return stored_bytes + self._replay.nbytes

    @property
    def replay_status(self) -> str:
        """Return "replayed" if products come from a CUDA graph, else the reason why not."""
        return self._replay.status

    def _product(self, vector: Tensor) -> Tensor:
        if not self._engines:
            self._make_engines()
        directions = self._layout.convert_weights(self.problem.split(self._scale(vector)))
        total: list[Tensor] | None = None
        for (chunk, share), stored_engine in zip(self._chunks, self._engines, strict=True):
            engine = stored_engine or self._make_engine(chunk)
            total = accumulate(total, engine.product(directions, self.matrix), share)
        return self._scale(self.problem.flatten(total))

    def _scale(self, vector: Tensor) -> Tensor:
        return vector if self._norms is None else self._norms * vector

    def _halve_until_fits(self, work: Callable[[], Tensor]) -> Tensor:
        """Return the result of `work`, with chunks halved while memory runs out."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                batches = [batch for batch, _ in self._chunks]
                size = max(map(num_samples, batches))
                if size == 1 or not self.problem.separable:
                    raise out_of_memory(self.problem.device, size) from error
            # here the error and the tensors that it held are freed
            self._engines, self._replay = [], GraphReplay(0, None)
            self._divide(rechunk(batches, size // 2))
            self._budget /= 2

    def _divide(self, chunks: list[Batch]) -> None:
        """Compute in these chunks, each with its share in the loss; leave out those without."""
        shares = self.problem.shares(chunks)
        self._chunks = [pair for pair in zip(chunks, shares, strict=True) if pair[1]]

    def _make_engines(self) -> Tensor:
        """Keep engines for as many chunks as the budget allows, and return the gradient."""
        self._engines = []
        stored_bytes, total = 0, None
        for chunk, share in self._chunks:
            engine = self._make_engine(chunk)
            total = accumulate(total, engine.gradient, share)
            engine.gradient = None
            fits = stored_bytes + engine.nbytes <= self._budget
            stored_bytes += engine.nbytes * fits
            self._engines.append(engine if fits else None)
        self._replay = GraphReplay(self._budget - stored_bytes, capture if self._stream else None)
        self.gradient = self._scale(self.problem.flatten(total))
        return self.gradient

    def _make_engine(self, chunk: Batch) -> Engine:
        engine: Engine = ENGINES[self.mode](self._loss(chunk), self._weights)
        return engine

    def _nbytes(self, samples: Batch) -> float:
        return DoubleBackward(self._loss(samples), self._weights).nbytes

    def _loss(self, chunk: Batch) -> BatchLoss:
        x, y = chunk
        return self.problem.batch_loss((self._layout.convert_inputs(x), y))

    @contextmanager
    def _context(self) -> Iterator[None]:
        with self.problem.evaluation_mode(), twice_differentiable(), use_stream(self._stream):
            yield
