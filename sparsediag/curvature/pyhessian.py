"""PyHessian on the live weights of a problem, for comparison (Yao et al., IEEE Big Data 2020)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsediag.core.problem import Problem


class LiveNet(nn.Module):
    """The problem's network with the flat vector of live weights as its only parameter."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        self.vector = nn.Parameter(problem.weights.clone())

    def forward(self, x: Tensor) -> Any:
        """Return the outputs of the problem's network at this vector."""
        return self.problem.forward(self.problem.split(self.vector), x)


@contextmanager
def _counting_hessian(problem: Problem, seed: int) -> Iterator[Any]:
    """Yield a seeded PyHessian object of the problem, in evaluation mode, that counts its products.

    Raises:
        ValueError: If PyHessian does not take such a loss or such batches.
    """
    from pyhessian import hessian

    class CountingHessian(hessian):  # type: ignore[misc]
        products = 0

        def dataloader_hv_product(self, v: Any) -> Any:
            self.products += 1
            return super().dataloader_hv_product(v)

    if problem.reads_weights or (len(problem.batches) > 1 and problem.reduction != "samples"):
        raise ValueError(
            "PyHessian takes a loss that is a mean over samples and does not read the net's "
            "weights; use solver='lanczos'"
        )
    if not all(isinstance(part, Tensor) for batch in problem.batches for part in batch):
        raise ValueError("PyHessian takes pairs of tensors only; use solver='lanczos'")
    cuda = problem.device.type == "cuda"
    with (
        torch.random.fork_rng(devices=[problem.device] if cuda else []),
        torch.cuda.device(problem.device if cuda else -1),
        warnings.catch_warnings(),
        problem.evaluation_mode(),
    ):
        warnings.simplefilter("ignore")  # backward(create_graph=True)
        torch.manual_seed(seed)
        net = LiveNet(problem)
        yield CountingHessian(net, problem.loss, dataloader=problem.batches, cuda=cuda)


def eigenpairs(
    problem: Problem, *, top: int, tol: float, seed: int, max_matvecs: int | None
) -> tuple[np.ndarray, Tensor, int]:
    """Return values, unit vectors as rows, and products of PyHessian's power iteration.

    Args:
        problem: The loss.
        top: Number of pairs, of largest magnitude.
        tol: Relative change of the value at which an iteration stops.
        seed: Seed of the start vectors.
        max_matvecs: Largest number of products per pair (default: 100).
    """
    limit = 100 if max_matvecs is None else max_matvecs
    with _counting_hessian(problem, seed) as hessian:
        values, vectors = hessian.eigenvalues(maxIter=limit, tol=tol, top_n=top)
    return np.array(values), torch.stack([v[0] / v[0].norm() for v in vectors]), hessian.products


def trace_samples(
    problem: Problem, *, tol: float, seed: int, max_matvecs: int
) -> tuple[np.ndarray, int]:
    """Return samples of v . Hv, whose mean is the trace, and the number of products."""
    with _counting_hessian(problem, seed) as hessian:
        samples = hessian.trace(maxIter=max_matvecs, tol=tol)
    return np.array(samples, dtype=float), hessian.products
