"""Trace of the Hessian by Hutch++, with the error that its own samples show."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from sparsediag.core.batch_loss import Matrix
from sparsediag.core.errors import unknown_name
from sparsediag.core.problem import Problem
from sparsediag.core.rng import stream
from sparsediag.curvature import pyhessian
from sparsediag.curvature.engines import Mode
from sparsediag.curvature.operator import Curvature
from sparsediag.diagnostics.result import Result, source
from sparsediag.diagnostics.traits import diagnostic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST = 10  # samples before their spread is believed
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace(Result):
    """The sum of the eigenvalues over the live weights.

    Attributes:
        trace: The estimate.
        error: Half the width of its 95 % interval, by Student's t on the samples. The stop looks
            at it after each sample, so its coverage is a little less.
        captured: The part of it that is exact, from the sketched subspace.
        samples: Independent estimates of the rest, (any,).
        mean: Trace over the number of live weights: the mean eigenvalue.
        converged: The error is at most `tol` times the trace, and there are no doubts.
        doubts: What speaks against the estimate.
        products: Products with the matrix.
        seconds: Time taken.
    """

    trace: float
    error: float
    captured: float
    samples: np.ndarray
    mean: float
    converged: bool
    doubts: list[str]
    products: int
    seconds: float

    def table(self) -> list[dict[str, Any]]:
        """Return one row."""
        return [
            {
                "trace": f"{self.trace:.6g}",
                "95 % within": f"{self.error:.2g}",
                "exact part": f"{self.captured:.6g}",
                "mean eigenvalue": f"{self.mean:.3g}",
                "samples": str(len(self.samples)),
                "products": str(self.products),
                "verdict": "converged" if self.converged else "NOT converged",
            }
        ]

    def remarks(self) -> list[str]:
        """Return what speaks against the estimate."""
        return [f"doubt: {line}" for line in self.doubts]

    def plot(self, ax: Axes | None = None) -> Axes:
        """The estimate as it came about, with its interval."""
        from sparsediag.plotting import style

        ax = ax or style.new_axes()
        count = np.arange(2, len(self.samples) + 1)
        running = np.array([self.captured + self.samples[:n].mean() for n in count])
        error = np.array([_error(self.samples[:n]) for n in count])
        ax.plot(count, running, color=style.COLOURS[0])
        ax.fill_between(
            count, running - error, running + error, color=style.COLOURS[4], alpha=0.4, lw=0
        )
        spread = max(6 * self.error, 1e-3 * abs(self.trace))
        ax.set(xlabel="samples", ylabel="trace", ylim=(self.trace - spread, self.trace + spread))
        return ax


@diagnostic()
def trace(
    problem: Problem,
    *,
    tol: float = 0.02,
    sketch: int = 10,
    seed: int = 0,
    params: str | None = None,
    dense: bool = False,
    matrix: Matrix = "hessian",
    solver: Literal["hutch++", "pyhessian"] = "hutch++",
    mode: Mode = "auto",
    memory: float | None = None,
    max_matvecs: int = 200,
    progress: Callable[[int, int], None] | None = None,
) -> Trace:
    """Trace of the Hessian over the live weights (Hutch++: Meyer, Musco et al., SOSA 2021).

    The trace on a random sketch of the leading subspace is exact; the rest is the mean of
    v . Hv over random signs v outside of it, and sampling goes on until its error is small.

    Args:
        problem: The loss.
        tol: Share of the trace that the 95 % interval may reach to either side.
        sketch: Size of the subspace; it takes two products for each dimension. 0 for Hutchinson's
            plain estimator.
        seed: Seed of the random signs.
        params: Only these weights move; see `spectrum`.
        dense: Let dead weights move too.
        matrix: The Hessian, the Gauss-Newton matrix, or the empirical Fisher matrix.
        solver: "pyhessian" for its samples and its stop, on the change of their mean.
        mode: How products are made; see `Curvature`.
        memory: GiB kept between products.
        max_matvecs: Stop after so many.
        progress: Called as `progress(products, limit)`.

    Raises:
        ValueError: If options do not fit each other.

    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> eye = [(torch.eye(2), torch.ones(2, 1))]
    >>> round(trace(Problem(net, eye, loss=torch.nn.MSELoss())).trace, 4)
    2.0
    """
    options = {k: v for k, v in dict(locals()).items() if k not in ("problem", "progress")}
    if solver not in ("hutch++", "pyhessian"):
        raise ValueError(unknown_name("solver", solver, ("hutch++", "pyhessian")))
    if solver == "pyhessian" and matrix != "hessian":
        raise ValueError("PyHessian knows the Hessian only; use solver='hutch++'")
    if not 0 < tol < np.inf or sketch < 0:
        raise ValueError(f"tol={tol}, sketch={sketch}: need a positive tol, and 0 or more")
    problem = problem.view(params=params, dense=dense)
    if not problem.size:
        raise ValueError("the problem has no live weight; need one or more")
    sketch = min(sketch, problem.size)
    if max_matvecs < 2 * sketch + FEWEST:
        raise ValueError(
            f"max_matvecs={max_matvecs}: need {2 * sketch + FEWEST} or more for sketch={sketch}"
        )
    began, exact = time.perf_counter(), 0.0
    doubts: list[str] = []
    if solver == "pyhessian":
        samples, products = pyhessian.trace(problem, tol=tol, seed=seed, max_matvecs=max_matvecs)
    else:
        hessian = Curvature(problem, matrix=matrix, mode=mode, memory=memory)
        doubts = hessian.doubts
        generator = stream("trace", seed)

        def signs() -> Tensor:
            draw = torch.randint(2, (problem.size,), generator=generator) * 2 - 1
            return draw.to(problem.weights)

        basis = problem.weights.new_zeros(0, problem.size)
        if sketch:
            basis = torch.linalg.qr(torch.stack([hessian(signs()) for _ in range(sketch)]).T).Q.T
            exact = sum(float((q.double() * hessian(q).double()).sum()) for q in basis)
        found: list[float] = []
        while hessian.products < max_matvecs and sketch < problem.size:
            v = signs()
            v = v - (v @ basis.T) @ basis
            found.append(float((v.double() * hessian(v).double()).sum()))
            if progress:
                progress(hessian.products, max_matvecs)
            total = exact + float(np.mean(found))
            if len(found) >= FEWEST and _error(np.array(found)) <= tol * abs(total):
                break
        samples, products = np.array(found or [0.0, 0.0]), hessian.products
    total, error = exact + float(samples.mean()), _error(samples)
    return Trace(
        trace=total,
        error=error,
        captured=exact,
        samples=samples,
        mean=total / problem.size,
        converged=bool(error <= tol * abs(total)) and not doubts,
        doubts=doubts,
        products=products,
        seconds=time.perf_counter() - began,
        source=source(problem, **options),
    )


def _error(samples: np.ndarray) -> float:
    """Half the width of the interval of the mean."""
    if len(samples) < 2:
        return float("inf")
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, len(samples) - 1))
    return quantile * float(samples.std(ddof=1)) / float(np.sqrt(len(samples)))
