"""Spectrum: the top of the Hessian of a sparse net (Yao et al., PyHessian, 2020)."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sparsediag.errors import unknown
from sparsediag.lanczos import Which, eigenpairs
from sparsediag.problem import Problem
from sparsediag.result import Result, source

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum(Result):
    """Eigenpairs of the Hessian with respect to the live weights.

    Attributes:
        eigenvalues: Best first, (top,).
        residuals: |Hv - value v| / |value|, recomputed for each pair, (top,).
        vectors: Unit eigenvectors in live coordinates, (top, size). The loss rises along +v.
        converged: Every residual is at most the tolerance that was asked for.
        products: Hessian-vector products used, those of the residuals included.
        seconds: Time taken.
        names: The weight tensors, in the order of the live coordinates.
        counts: Live weights of each of them.
    """

    eigenvalues: np.ndarray
    residuals: np.ndarray
    vectors: np.ndarray
    converged: bool
    products: int
    seconds: float
    names: list[str]
    counts: list[int]

    def shares(self) -> np.ndarray:
        """Squared mass of each eigenvector on each tensor, (top, tensors); rows sum to 1."""
        starts = np.cumsum([0, *self.counts])
        squared = np.square(self.vectors, dtype=float)
        return np.stack([squared[:, a:b].sum(1) for a, b in pairwise(starts)], axis=1)

    def table(self) -> list[dict[str, Any]]:
        """One row a pair, with the tensor that carries most of the eigenvector."""
        shares = self.shares()
        return [
            {
                "eigenvalue": f"{value:.6g}",
                "relative residual": f"{residual:.1e}",
                "mostly in": f"{self.names[row.argmax()]} ({row.max():.0%})",
            }
            for value, residual, row in zip(self.eigenvalues, self.residuals, shares, strict=True)
        ]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Eigenvalues as bars, their residuals as error bars."""
        from sparsediag import plotting

        ax = ax or plotting.axes()
        place = np.arange(1, len(self.eigenvalues) + 1)
        error = self.residuals * np.abs(self.eigenvalues)
        ax.bar(place, self.eigenvalues, yerr=error, color=plotting.COLOURS[0], width=0.7)
        ax.set(xlabel="eigenvector", ylabel="Hessian eigenvalue")
        ax.set_xticks(place)
        return ax


def spectrum(
    problem: Problem,
    *,
    top: int = 5,
    which: Which = "largest",
    tol: float = 1e-3,
    seed: int = 0,
    copies: bool = True,
    solver: Literal["lanczos", "pyhessian"] = "lanczos",
    max_products: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Spectrum:
    """Top eigenpairs of the Hessian of the loss, with respect to the live weights.

    Args:
        problem: The loss.
        top: Number of eigenpairs.
        which: The algebraically largest or smallest, or the largest magnitude.
        tol: Relative residual at which a pair has converged.
        seed: Seed of the start vector.
        copies: Search again for further copies of a multiple eigenvalue, at twice the products.
        solver: "pyhessian" runs PyHessian's power iteration on the same live weights, for
            comparison: largest magnitude only, and its `tol` is on the change of the value.
        max_products: Stop after so many products (PyHessian: so many a pair).
        progress: Called as `progress(products, limit)`.

    Raises:
        ValueError: If there are fewer live weights than eigenpairs asked for.

    >>> problem = Problem(nn.Linear(2, 1), [(torch.eye(2), torch.ones(2, 1))], loss=nn.MSELoss())
    >>> spectrum(problem, top=1).converged
    True
    """
    if solver not in ("lanczos", "pyhessian"):
        raise ValueError(unknown("solver", solver, ("lanczos", "pyhessian")))
    if not 1 <= top <= problem.size:
        raise ValueError(
            f"top={top} eigenvalues asked of a problem with {problem.size} live weights"
        )
    start = time.perf_counter()
    if solver == "pyhessian":
        if which == "smallest":
            raise ValueError("PyHessian finds the largest magnitude only; use solver='lanczos'")
        which = "magnitude"
        values, vectors, residuals, products = _pyhessian(problem, top, tol, seed, max_products)
    else:
        found = eigenpairs(
            problem.hvp,
            problem.weights,
            top=top,
            which=which,
            tol=tol,
            seed=seed,
            copies=copies,
            max_products=max_products,
            progress=progress,
        )
        values, vectors, residuals = found.values, found.vectors, found.residuals
        products = found.products
    gradient = problem.gradient()
    rising = torch.where(vectors @ gradient < 0, -1, 1)
    counts = problem.live.counts()
    return Spectrum(
        eigenvalues=values,
        residuals=residuals,
        vectors=(vectors * rising[:, None]).cpu().numpy(),
        converged=bool((residuals <= tol).all()),
        products=products,
        seconds=time.perf_counter() - start,
        names=list(counts),
        counts=list(counts.values()),
        source=source(
            problem,
            top=top,
            which=which,
            tol=tol,
            seed=seed,
            copies=copies,
            solver=solver,
            max_products=max_products,
        ),
    )


class _LiveNet(nn.Module):
    """The problem's net with the flat vector of live weights as its only parameter."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.call = problem.at_vector
        self.vector = nn.Parameter(problem.weights.clone())

    def forward(self, x: Tensor) -> Any:
        return self.call(self.vector, x)


def _pyhessian(
    problem: Problem, top: int, tol: float, seed: int, max_products: int | None
) -> tuple[np.ndarray, Tensor, np.ndarray, int]:
    from pyhessian import hessian

    counted = 0

    class Counted(hessian):  # type: ignore[misc]
        def dataloader_hv_product(self, v: Any) -> Any:
            nonlocal counted
            counted += 1
            return super().dataloader_hv_product(v)

    cuda = problem.device.type == "cuda"
    with (
        torch.random.fork_rng(devices=[problem.device] if cuda else []),
        warnings.catch_warnings(),
        problem.modes(),
    ):
        warnings.simplefilter("ignore")  # backward(create_graph=True)
        torch.manual_seed(seed)
        judge = Counted(_LiveNet(problem), problem.loss, dataloader=problem.batches, cuda=cuda)
        found, vectors = judge.eigenvalues(
            maxIter=100 if max_products is None else max_products, tol=tol, top_n=top
        )
    rows = torch.stack([v[0] / v[0].norm() for v in vectors])
    products = torch.stack([problem.hvp(v) for v in rows])
    values = np.array(found)
    residuals = (products - torch.tensor(values).to(rows)[:, None] * rows).norm(dim=1)
    return values, rows, residuals.double().cpu().numpy() / np.abs(values), counted + top
