"""Trace of the Hessian by Hutch++, with a confidence interval from its own samples."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.batch_loss import Matrix
from sparsediag.core.errors import unknown_name
from sparsediag.core.estimate import Estimate
from sparsediag.core.problem import Problem
from sparsediag.core.progress import track
from sparsediag.core.rng import stream
from sparsediag.curvature import pyhessian
from sparsediag.curvature.engines import Mode, double_backward_doubts
from sparsediag.curvature.operator import Curvature
from sparsediag.diagnostics.result import Result, source
from sparsediag.diagnostics.traits import diagnostic
from sparsediag.surfaces.point_log import PointLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_SAMPLES = 10  # before the spread of the samples is trusted
SURE = 50  # samples after which their spread tells how many are needed
MAX_PRODUCTS = 2000  # if no other limit is given
FIRST_GUESS = 200  # products, for the bar, before the samples tell how many
MAX_MINUTES = 600  # that are worth advising


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace(Result):
    """The sum of the eigenvalues over the live weights.

    Attributes:
        trace: The estimate.
        error: Half the width of its 95 % confidence interval, by Student's t over the samples.
            Sampling stops by it, so that the coverage is slightly lower.
        captured: The exact part of the trace, on the sketched subspace.
        samples: Independent estimates of the rest, (samples,).
        mean: Trace / number of live weights: the mean eigenvalue.
        converged: True if the error is at most `tol` times the trace and there is no doubt.
        doubts: Reasons not to trust the estimate, one line each.
        products: Number of matrix-vector products.
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
                "± (95 %)": f"{self.error:.2g}",
                "exact part": f"{self.captured:.6g}",
                "mean eigenvalue": f"{self.mean:.3g}",
                "samples": str(len(self.samples)),
                "products": str(self.products),
                "verdict": "converged" if self.converged else "NOT converged",
            }
        ]

    def remarks(self) -> list[str]:
        """Return the doubts."""
        return [f"doubt: {line}" for line in self.doubts]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the estimate and its confidence interval over the number of samples."""
        from sparsediag.plotting import style

        ax = ax or style.new_axes()
        count = np.arange(2, len(self.samples) + 1)
        running = np.array([self.captured + self.samples[:n].mean() for n in count])
        error = np.array([_error(self.samples[:n]) for n in count])
        low, high = running - error, running + error
        ax.plot(count, running, color=style.COLOURS[0], label="estimate")
        band: dict[str, Any] = {
            "color": style.COLOURS[4],
            "alpha": 0.4,
            "lw": 0,
            "label": "95 % interval",
        }
        ax.fill_between(count, low, high, **band)
        margin = max(6 * self.error, 1e-3 * abs(self.trace))
        ax.set(xlabel="samples", ylabel="trace", ylim=(self.trace - margin, self.trace + margin))
        with style.style():
            ax.legend()
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
    max_matvecs: int | None = None,
    resume: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Trace:
    """Estimate the trace of the Hessian over the live weights (Meyer, Musco et al., SOSA 2021).

    Hutch++, algorithm 1: the trace is exact on a random sketch Q of the leading subspace; the rest
    is the mean of v . Hv over random signs v projected out of Q, sampled until its error is small.

    Args:
        problem: The loss.
        tol: Half the width of the 95 % confidence interval at which to stop, relative to the trace.
        sketch: Dimensions of the subspace, two products each; 0 for Hutchinson's estimator.
        seed: Seed of the random signs.
        params: Weights that move: globs of their names, separated by commas, or "matrices" for all
            but biases and batch norm (default: all live weights).
        dense: Let dead weights move too.
        matrix: The Hessian, the Gauss-Newton matrix, or the empirical Fisher matrix.
        solver: "pyhessian" for its samples and its stop, on the change of their mean.
        mode: Engine of the products: a recorded "tape", double backward on a "retained" graph, or
            "compiled"; "auto" takes the one that suits the network.
        memory: GiB kept between products.
        max_matvecs: Largest number of products (default: as many as `tol` needs, up to 2,000; if it
            is clear after 50 samples that these are too few, it stops and says so).
        resume: File that records the samples of hutch++, so that a killed estimate can be resumed;
            remove it at the end.
        progress: Called as `progress(products, limit)`.

    Returns:
        The estimate, its error and its samples.

    Raises:
        ValueError: If an option is invalid, options do not go together, or `resume` holds other
            samples.

    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> eye = [(torch.eye(2), torch.ones(2, 1))]
    >>> round(trace(Problem(net, eye, loss=torch.nn.MSELoss())).trace, 4)
    2.0
    """
    if solver not in ("hutch++", "pyhessian"):
        raise ValueError(unknown_name("solver", solver, ("hutch++", "pyhessian")))
    if solver == "pyhessian" and matrix != "hessian":
        raise ValueError("PyHessian knows the Hessian only; use solver='hutch++'")
    if not 0 < tol < np.inf or sketch < 0:
        raise ValueError(
            f"tol={tol}, sketch={sketch}: need a positive tol and a sketch of 0 or more"
        )
    weights = {"params": params, "dense": dense}
    sampling = {"tol": tol, "seed": seed, "max_matvecs": max_matvecs}
    operator = {"matrix": matrix, "mode": mode, "memory": memory}
    options = {"sketch": sketch, "solver": solver, **weights, **sampling, **operator}
    problem = problem.view(params=params, dense=dense)
    if not problem.size:
        raise ValueError("the problem has no live weight; need one or more")
    sketch = min(sketch, problem.size)
    stop_early, max_matvecs = max_matvecs is None, max_matvecs or MAX_PRODUCTS
    if max_matvecs < 2 * sketch + MIN_SAMPLES:
        raise ValueError(
            f"max_matvecs={max_matvecs}: need {2 * sketch + MIN_SAMPLES} or more for "
            f"sketch={sketch}"
        )
    began = time.perf_counter()
    if solver == "pyhessian":
        samples, products = pyhessian.trace_samples(
            problem, tol=tol, seed=seed, max_matvecs=max_matvecs
        )
        exact, doubts = 0.0, double_backward_doubts(problem)
    else:
        hessian = Curvature(problem, matrix=matrix, mode=mode, memory=memory)
        about = problem.digests | {"options": f"{matrix} {sketch} {seed}"}
        with PointLog(resume, about) as log:
            exact, samples, products = _hutch(
                hessian,
                sketch,
                log,
                tol=tol,
                seed=seed,
                max_matvecs=max_matvecs,
                stop_early=stop_early,
                progress=progress,
            )
        doubts = hessian.doubts
    total, error = exact + float(samples.mean()), _error(samples)
    seconds = time.perf_counter() - began
    if error > tol * abs(total):
        need = 2 * sketch + _samples_needed(samples, tol * abs(total))
        doubts = [*doubts, _advice(error / abs(total), tol, products, need, seconds)]
    return Trace(
        trace=total,
        error=error,
        captured=exact,
        samples=samples,
        mean=total / problem.size,
        converged=not doubts,
        doubts=doubts,
        products=products,
        seconds=seconds,
        source=source(problem, **options),
    )


def _hutch(
    hessian: Curvature,
    sketch: int,
    log: PointLog,
    *,
    tol: float,
    seed: int,
    max_matvecs: int,
    stop_early: bool,
    progress: Callable[[int, int], None] | None,
) -> tuple[float, np.ndarray, int]:
    """Return the trace on a sketch of the leading subspace, samples of the rest, and the products.

    What `log` holds is not computed again. With `stop_early` it ends as soon as it is clear that
    `max_matvecs` are too few by far.
    """
    weights, generator = hessian.problem.weights, stream("trace", seed)
    size, expected = len(weights), min(max_matvecs, FIRST_GUESS)

    def signs() -> Tensor:
        return (torch.randint(2, (size,), generator=generator) * 2 - 1).to(weights)

    def quadratic_form(number: int, v: Tensor) -> float:
        if number not in log.values:
            log.add(number, float((v.double() * hessian(v).double()).sum()), 0.0)
        if progress:
            done = sketch + number + 1
            progress(done, max(done, min(expected, max_matvecs)))
        return log.values[number][0]

    basis, columns = weights.new_zeros(0, size), range(sketch)
    if sketch:
        images = [hessian(signs()) for _ in track(columns, progress, expected)]
        basis = torch.linalg.qr(torch.stack(images).T).Q.T
    exact = sum(quadratic_form(i, basis[i]) for i in columns)
    samples: list[float] = []
    while (products := 2 * sketch + len(samples)) < max_matvecs and sketch < size:
        v = signs()
        samples.append(quadratic_form(products - sketch, v - (v @ basis.T) @ basis))
        if len(samples) >= MIN_SAMPLES:
            accepted = tol * abs(exact + np.mean(samples))
            if _error(np.array(samples)) <= accepted:
                break
            expected = 2 * sketch + _samples_needed(np.array(samples), accepted)
            if stop_early and len(samples) >= SURE and expected > 2 * max_matvecs:
                break
    products = 2 * sketch + len(samples)
    return exact, np.array(samples or [0.0, 0.0]), products


def _error(samples: np.ndarray) -> float:
    """Return half the width of the confidence interval of the mean."""
    return Estimate.of(samples).half if len(samples) else float("inf")


def _samples_needed(samples: np.ndarray, accepted: float | np.floating[Any]) -> int:
    """Return about how many samples give an accepted error: it falls with their root."""
    ratio = _error(samples) / max(float(accepted), np.finfo(float).tiny)
    return int(min(np.ceil(len(samples) * ratio**2), 1e9))


def _advice(error: float, tol: float, products: int, need: int, seconds: float) -> str:
    """Return what to do about an error, relative to the trace, that is too large."""
    minutes = seconds * need / products / 60
    advice = f"max_matvecs={need} would do (about {minutes:.1f} min), or tol={1.05 * error:.2g}"
    if not minutes < MAX_MINUTES:
        advice = "the trace is close to 0 beside its samples: look at the eigenvalues instead"
    return (
        f"the 95 % interval is ±{error:.1%} of the trace after {products} products, more than "
        f"tol={tol:g}: {advice}"
    )
