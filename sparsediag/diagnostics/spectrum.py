"""Spectrum: eigenvalues of the Hessian of a sparse net, each with what is known of its error."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.batch_loss import Matrix
from sparsediag.core.errors import unknown_name
from sparsediag.core.problem import Problem
from sparsediag.curvature.eigensolvers import SOLVERS
from sparsediag.curvature.engines import Mode
from sparsediag.curvature.lanczos import ORDER, Which
from sparsediag.curvature.operator import Curvature
from sparsediag.curvature.slq import density as smoothed
from sparsediag.curvature.slq import quadrature
from sparsediag.diagnostics.result import Result, source
from sparsediag.diagnostics.traits import InReport, Traits, diagnostic

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum(Result):
    """Eigenpairs of the Hessian with respect to the live weights, and their certificate.

    Attributes:
        eigenvalues: Best first, (top,).
        residuals: |Hv - value v| / |value|, recomputed for each pair, (top,).
        intervals: An eigenvalue lies between the low and the high end, (top, 2).
        angles: Degrees at most between each vector and its eigenvector, (top,).
        vectors: Unit eigenvectors in live coordinates, (top, size). The loss rises along +v.
        converged: Nothing that was checked speaks against the pairs.
        doubts: What speaks against them, one line each.
        checks: Numbers of the certificate (`Certificate.checks`): orthogonality, copies, noise,
            asymmetry, hidden (the chance that a better eigenvalue was overlooked), products.
        lowest: Smallest Ritz value seen; the matrix has an eigenvalue at or below it.
        weight_norm: |w| of the live weights; value times its square survives a change of scale.
        nodes: Nodes of the spectral density, (num_probes, lanczos_steps); (0, 0) without one.
        node_weights: Of the nodes; the rows sum to 1.
        products: Products of the search, that probe included.
        seconds: Time taken by set-up, search, certificate and density together.
        memory: Bytes held by the basis and between products.
        mode: How the products were made.
        names: The weight tensors, in the order of the live coordinates.
        counts: Live weights of each of them.
        sizes: All weights of each of them.
        alive: Which weights are live, eight a byte; empty where all are.
    """

    eigenvalues: np.ndarray
    residuals: np.ndarray
    intervals: np.ndarray
    angles: np.ndarray
    vectors: np.ndarray
    converged: bool
    doubts: list[str]
    checks: dict[str, float]
    lowest: float
    weight_norm: float
    nodes: np.ndarray
    node_weights: np.ndarray
    products: int
    seconds: float
    memory: int
    mode: str
    names: list[str]
    counts: list[int]
    sizes: list[int]
    alive: np.ndarray

    def shares(self) -> np.ndarray:
        """Squared mass of each eigenvector on each tensor, (top, tensors); rows sum to 1."""
        starts = np.cumsum([0, *self.counts])
        squared = np.square(self.vectors, dtype=float)
        return np.stack([squared[:, a:b].sum(1) for a, b in pairwise(starts)], axis=1)

    def density(self, places: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
        """Density of the spectrum at `places` and its standard error; see `quadrature.py`."""
        if not self.nodes.size:
            raise ValueError("this spectrum holds no density; ask for one with density=True")
        return smoothed(self.nodes, self.node_weights, places, width)

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each pair, with the tensor that carries most of the eigenvector."""
        return [
            {
                "eigenvalue": f"{value:.6g}",
                "±": f"{(high - low) / 2:.1g}",
                "residual": f"{residual:.1e}",
                "angle": "?" if angle >= 90 else f"<{angle:.1g}°",
                "x |w|²": f"{value * self.weight_norm**2:.3g}",
                "mostly in": f"{self.names[row.argmax()]} ({row.max():.0%})",
            }
            for value, (low, high), residual, angle, row in zip(
                self.eigenvalues,
                self.intervals,
                self.residuals,
                self.angles,
                self.shares(),
                strict=True,
            )
        ]

    def remarks(self) -> list[str]:
        """Return whether the pairs can be trusted, and why not, in lines for a terminal."""
        checks, hidden = self.checks, "the probe is too short to bound the chance of a missed pair"
        if checks["hidden"] < 0.5:
            hidden = f"chance of a better one {checks['hidden']:.0%}"
        lines = [
            f"{'converged' if self.converged else 'NOT converged'}: {self.products} products and "
            f"{checks['products']:.0f} to check them, {self.seconds:.1f} s by {self.mode}",
            f"orthogonal to {checks['orthogonality']:.0e}, noise {checks['noise']:.0e}, {hidden}, "
            f"lowest value {self.lowest:.4g}",
        ]
        if self.source["options"]["dense"]:
            lines.append("dense view: weights that the mask calls dead were moved too")
        if self.nodes.size and self.source["options"]["solver"] == "pyhessian":
            lines.append("the density is ours: PyHessian 0.1 calls torch.eig, which is gone")
        return [*lines, *(f"doubt: {line}" for line in self.doubts)]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Eigenvalues with their intervals, or the density with the eigenvalues marked on it."""
        from sparsediag.plotting.spectrum import plot_density, plot_eigenvalues

        values, matrix = self.eigenvalues, str(self.source["options"]["matrix"]).title()
        if not self.nodes.size:
            sure = self.converged
            return plot_eigenvalues(values, self.intervals, matrix=matrix, converged=sure, ax=ax)
        support = self.nodes[self.node_weights > 0]
        return plot_density(self.density, support, values, matrix=matrix, ax=ax)


@diagnostic(
    Traits(
        run="trajectory.trajectory",
        report=InReport(
            cost=lambda points, top: 5 * (10 * top + 3 * 30),
            options={"density": True, "num_probes": 3, "lanczos_steps": 30},
        ),
    )
)
def spectrum(
    problem: Problem,
    *,
    top: int = 5,
    which: Which = "largest",
    tol: float = 1e-3,
    seed: int = 0,
    params: str | None = None,
    dense: bool = False,
    matrix: Matrix = "hessian",
    norm: Literal["none", "filter"] = "none",
    density: bool = False,
    num_probes: int = 5,
    lanczos_steps: int = 40,
    block_size: int = 1,
    max_basis: int | None = None,
    start: Spectrum | None = None,
    solver: Literal["lanczos", "pyhessian"] = "lanczos",
    mode: Mode = "auto",
    memory: float | None = None,
    max_matvecs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Spectrum:
    """Eigenpairs of the Hessian of the loss, with respect to the live weights (ToST, Figure 9a).

    Args:
        problem: The loss.
        top: Number of eigenpairs.
        which: The algebraically largest or smallest, or the largest magnitude.
        tol: Relative residual at which a pair has converged.
        seed: Seed of the start vectors.
        params: Only these weights move: globs parted by commas, or "matrices"; see `Problem`.
        dense: Let dead weights move too: the spectrum that tools without masks report.
        matrix: The Hessian, the Gauss-Newton matrix, or the empirical Fisher matrix.
        norm: "filter" for weights in units of their filter's norm: invariant to its scale.
        density: Also estimate the density of the whole spectrum.
        num_probes: Random starts of the density.
        lanczos_steps: Products for each of them.
        block_size: Directions a step; more find copies of an eigenvalue at once.
        max_basis: Vectors kept at most, each as long as there are live weights.
        start: A spectrum of a similar net to start from.
        solver: "pyhessian" for its power iteration: largest magnitude, `tol` on the value's change.
        mode: How products are made; see `Curvature`.
        memory: GiB kept between products (default: half of what is free).
        max_matvecs: Stop after so many products (PyHessian: so many a pair).
        progress: Called as `progress(products, limit)`.

    Raises:
        ValueError: If there are fewer live weights than eigenpairs, or options do not fit.

    >>> from torch import nn
    >>> problem = Problem(nn.Linear(2, 1), [(torch.eye(2), torch.ones(2, 1))], loss=nn.MSELoss())
    >>> spectrum(problem, top=1).converged
    True
    """
    options = {k: v for k, v in dict(locals()).items() if k not in ("problem", "progress", "start")}
    if solver not in SOLVERS:
        raise ValueError(unknown_name("solver", solver, SOLVERS))
    if which not in ORDER:
        raise ValueError(unknown_name("end of the spectrum", which, ORDER))
    if density and (num_probes < 2 or lanczos_steps < 1):
        raise ValueError(
            f"num_probes={num_probes}, lanczos_steps={lanczos_steps}: need 2 starts and 1 step or "
            "more"
        )
    if not 0 < tol < np.inf:
        raise ValueError(f"tol={tol}: need a positive relative residual")
    problem = problem.view(params=params, dense=dense)
    if not 1 <= top <= problem.size:
        raise ValueError(
            f"top={top} eigenvalues asked of a problem with {problem.size} live weights"
        )
    began = time.perf_counter()
    hessian = Curvature(problem, matrix=matrix, norm=norm, mode=mode, memory=memory)
    found = SOLVERS[solver](
        hessian,
        top=top,
        which=which,
        tol=tol,
        seed=seed,
        block_size=block_size,
        start=None if start is None else transfer(start, problem),
        max_basis=max_basis,
        max_matvecs=max_matvecs,
        progress=progress,
    )
    judged, vectors = found.certificate, found.vectors
    nodes, weights = np.zeros((0, 0)), np.zeros((0, 0))
    if density:
        nodes, weights = quadrature(
            hessian,
            problem.weights,
            probes=num_probes,
            steps=lanczos_steps,
            seed=seed,
            progress=progress,
        )
    doubts = [*judged.doubts, *hessian.doubts]
    rising = torch.where(vectors @ hessian.gradient < 0, -1, 1)
    counts = problem.live.counts()
    return Spectrum(
        eigenvalues=found.values,
        residuals=judged.residuals,
        intervals=judged.intervals,
        angles=judged.angles,
        vectors=(vectors * rising[:, None]).cpu().numpy(),
        converged=not doubts,
        doubts=doubts,
        checks=judged.checks(),
        lowest=min(found.lowest, float(nodes[weights > 0].min(initial=np.inf))),
        weight_norm=float(problem.weights.norm()),
        nodes=nodes,
        node_weights=weights,
        products=found.products,
        seconds=time.perf_counter() - began,
        memory=hessian.nbytes + (found.rows + top) * vectors[0].nbytes,
        mode=hessian.mode,
        names=list(counts),
        counts=list(counts.values()),
        sizes=[shape.numel() for shape in problem.live.shapes.values()],
        alive=problem.live.bits(),
        source=source(problem, **options),
    )


def dense_vectors(s: Spectrum) -> np.ndarray:
    """Return the vectors over all weights, dead ones included, (top, all)."""
    if not s.alive.size:
        return s.vectors
    full = np.zeros((len(s.vectors), sum(s.sizes)), s.vectors.dtype)
    full[:, np.unpackbits(s.alive, count=sum(s.sizes)).astype(bool)] = s.vectors
    return full


def transfer(start: Spectrum, problem: Problem) -> Tensor:
    """Return the vectors of another spectrum in the coordinates of this problem."""
    sizes = {name: shape.numel() for name, shape in problem.live.shapes.items()}
    if dict(zip(start.names, start.sizes, strict=True)) != sizes:
        raise ValueError("the spectrum to start from is of other weights; need one of the same net")
    if np.array_equal(start.alive, problem.live.bits()):
        return torch.from_numpy(start.vectors)
    full = torch.from_numpy(dense_vectors(start))
    return full if problem.live.index is None else full[:, problem.live.index.cpu()]
