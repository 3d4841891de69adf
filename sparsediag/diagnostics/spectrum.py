"""Spectrum: eigenvalues of the Hessian of a sparse network, with a bound on each error."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.batch_loss import Matrix
from sparsediag.core.errors import unknown_name
from sparsediag.core.problem import Problem
from sparsediag.curvature import slq
from sparsediag.curvature.eigensolvers import SOLVERS, Check
from sparsediag.curvature.engines import Mode
from sparsediag.curvature.lanczos import ORDER, Which
from sparsediag.curvature.operator import Curvature
from sparsediag.diagnostics.result import Result, source, table_rows
from sparsediag.diagnostics.traits import InReport, Traits, diagnostic

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum(Result):
    """Eigenpairs of the Hessian with respect to the live weights, and their certificate.

    Attributes:
        eigenvalues: The wanted end of the spectrum first, (top,).
        residuals: |Hv - value v| / |value| of each pair, (top,).
        intervals: Low and high end of an interval that holds the i-th eigenvalue, copies counted,
            except with a chance of 1.1e-3; see `Certificate`, (top, 2).
        angles: Bound on the angle between each vector and its eigenvector in degrees, (top,).
        vectors: Unit eigenvectors in live coordinates, (top, size). The loss rises along +v.
        converged: True if no check speaks against the pairs.
        doubts: The checks that do, one line each.
        checks: Numbers of the certificate (`Certificate.checks`): orthogonality, copies, noise,
            asymmetry, hidden (probability that a better eigenvalue was missed), products.
        lowest: Smallest Ritz value seen; the matrix has an eigenvalue at or below it.
        weight_norm: |w| of the live weights; value * |w|^2 does not change if a scale-invariant
            network is rescaled.
        nodes: Nodes of the spectral density, (num_probes, lanczos_steps); (0, 0) without density.
        node_weights: Weights of the nodes; each row sums to 1.
        products: Matrix-vector products of the search, its probe of the rest included.
        seconds: Time of set-up, search, certificate and density.
        memory: Bytes held by the basis and between products.
        mode: The engine of the products; see `Curvature`.
        names: The weight tensors, in the order of the live coordinates.
        counts: Number of live weights of each tensor.
        sizes: Number of all weights of each tensor.
        alive: The mask as bits, eight a byte; empty if all weights are live.
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
        """Return the squared norm of each eigenvector on each tensor, (top, tensors)."""
        starts = np.cumsum([0, *self.counts])
        squared = np.square(self.vectors, dtype=float)
        return np.stack([squared[:, a:b].sum(1) for a, b in pairwise(starts)], axis=1)

    def density(self, places: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the spectral density and its standard error; see `curvature.slq.density`."""
        if not self.nodes.size:
            raise ValueError("this spectrum has no density; compute it with density=True")
        return slq.density(self.nodes, self.node_weights, places, width)

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each pair, with the tensor that has most of the eigenvector."""
        return table_rows(
            {
                "eigenvalue": (self.eigenvalues, ".6g"),
                "±": (np.diff(self.intervals)[:, 0] / 2, ".1g"),
                "residual": (self.residuals, ".1e"),
                "angle": ([_format_angle(a) for a in self.angles], ""),
                "x |w|²": (self.eigenvalues * self.weight_norm**2, ".3g"),
                "mostly in": (
                    [f"{self.names[row.argmax()]} ({row.max():.0%})" for row in self.shares()],
                    "",
                ),
            }
        )

    def remarks(self) -> list[str]:
        """Return the verdict, the numbers of the certificate and all doubts."""
        checks, options = self.checks, self.source["options"]
        missed = "the probe is too short to bound the chance of a missed eigenvalue"
        if checks["hidden"] < 0.5:
            missed = f"chance of a missed eigenvalue {checks['hidden']:.1g}"
        lines = [
            f"{'converged' if self.converged else 'NOT converged'}: {self.products} products and "
            f"{checks['products']:.0f} to check them, {self.seconds:.1f} s, mode {self.mode}",
            f"vectors orthogonal to {checks['orthogonality']:.0e}, products repeatable to "
            f"{checks['noise']:.0e}, smallest Ritz value {self.lowest:.4g}; {missed}",
        ]
        if options["dense"]:
            lines.append("dense view: dead weights move too, unlike in the sparse network")
        if self.nodes.size and options["solver"] == "pyhessian":
            lines.append(
                "the density is not PyHessian's: its version 0.1 needs the removed torch.eig"
            )
        return [*lines, *(f"doubt: {line}" for line in self.doubts)]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the eigenvalues with their intervals, or the density with the eigenvalues on it."""
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
    check: Check = "combined",
    mode: Mode = "auto",
    memory: float | None = None,
    max_matvecs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Spectrum:
    """Compute eigenpairs of the Hessian with respect to the live weights (ToST, Figure 9a).

    Block Lanczos with thick restart finds them (Golub and Van Loan, Matrix Computations, chapter
    10), and a certificate bounds their errors; stochastic Lanczos quadrature estimates the density
    (Ghorbani et al., ICML 2019).

    Args:
        problem: The loss.
        top: Number of eigenpairs.
        which: The algebraically largest or smallest ones, or those of largest magnitude.
        tol: Relative residual |Hv - value v| / |value| at which a pair has converged.
        seed: Seed of the start vectors.
        params: Weights that move: globs of their names, separated by commas, or "matrices" for all
            but biases and batch norm (default: all live weights).
        dense: Let dead weights move too: the spectrum that tools without masks report.
        matrix: The Hessian, the Gauss-Newton matrix, or the empirical Fisher matrix.
        norm: "filter" for weights in units of their filter's norm: invariant to its scale.
        density: Also estimate the density of the whole spectrum.
        num_probes: Number of random start vectors of the density.
        lanczos_steps: Number of products for each of them.
        block_size: Vectors per Lanczos step; more find multiple eigenvalues at once.
        max_basis: Largest number of basis vectors, each as long as there are live weights.
        start: Spectrum of a similar network to start from.
        solver: "pyhessian" for its power iteration: largest magnitude, `tol` on the value's change.
        check: Evaluate two random "combined" products again, or "each" one.
        mode: Engine of the products: a recorded "tape", double backward on a "retained" graph, or
            "compiled"; "auto" takes the one that suits the network.
        memory: GiB kept between products (default: half of what is free).
        max_matvecs: Largest number of products (PyHessian: for each pair).
        progress: Called as `progress(products, limit)`.

    Returns:
        The eigenpairs, the wanted end of the spectrum first, with bounds on their errors.

    Raises:
        ValueError: If there are fewer live weights than eigenpairs, or an option is invalid.

    >>> from torch import nn
    >>> problem = Problem(nn.Linear(2, 1), [(torch.eye(2), torch.ones(2, 1))], loss=nn.MSELoss())
    >>> spectrum(problem, top=1).converged
    True
    """
    if solver not in SOLVERS:
        raise ValueError(unknown_name("solver", solver, SOLVERS))
    if which not in ORDER:
        raise ValueError(unknown_name("end of the spectrum", which, ORDER))
    if check not in get_args(Check):
        raise ValueError(unknown_name("check", check, get_args(Check)))
    if density and (num_probes < 2 or lanczos_steps < 1):
        raise ValueError(
            f"num_probes={num_probes}, lanczos_steps={lanczos_steps}: need 2 probes and 1 step or "
            "more"
        )
    if not 0 < tol < np.inf:
        raise ValueError(f"tol={tol}: need a positive relative residual")
    weights = {"params": params, "dense": dense}
    operator: dict[str, Any] = {"matrix": matrix, "norm": norm, "mode": mode, "memory": memory}
    search: dict[str, Any] = {"top": top, "which": which, "tol": tol, "seed": seed}
    search |= {"block_size": block_size, "max_basis": max_basis, "max_matvecs": max_matvecs}
    search |= {"check": check}
    sampling = {"num_probes": num_probes, "lanczos_steps": lanczos_steps}
    options = {"density": density, "solver": solver, **weights, **operator, **search, **sampling}
    problem = problem.view(params=params, dense=dense)
    if not 1 <= top <= problem.size:
        live = problem.size
        raise ValueError(
            f"top={top}: need 1 or more, and at most one for each of {live} live weights"
        )
    began = time.perf_counter()
    hessian = Curvature(problem, **operator)
    solution = SOLVERS[solver](
        hessian,
        **search,
        start=None if start is None else transfer(start, problem),
        progress=progress,
    )
    certificate, vectors = solution.certificate, solution.vectors
    nodes, node_weights = np.zeros((0, 0)), np.zeros((0, 0))
    if density:
        nodes, node_weights = slq.quadrature(
            hessian,
            problem.weights,
            probes=num_probes,
            steps=lanczos_steps,
            seed=seed,
            progress=progress,
        )
    doubts = [*certificate.doubts, *hessian.doubts, *hessian.check(vectors[0])]
    uphill = torch.where(vectors @ hessian.gradient < 0, -1, 1)
    counts = problem.live.counts()
    return Spectrum(
        eigenvalues=solution.values,
        residuals=certificate.residuals,
        intervals=certificate.intervals,
        angles=certificate.angles,
        vectors=(vectors * uphill[:, None]).cpu().numpy(),
        converged=not doubts,
        doubts=doubts,
        checks=certificate.checks(),
        lowest=min(solution.lowest, float(nodes[node_weights > 0].min(initial=np.inf))),
        weight_norm=float(problem.weights.norm()),
        nodes=nodes,
        node_weights=node_weights,
        products=solution.products,
        seconds=time.perf_counter() - began,
        memory=hessian.nbytes + (solution.basis_size + top) * vectors[0].nbytes,
        mode=hessian.mode,
        names=list(counts),
        counts=list(counts.values()),
        sizes=[shape.numel() for shape in problem.live.shapes.values()],
        alive=problem.live.bits(),
        source=source(problem, **options),
    )


def _format_angle(degrees: float) -> str:
    """Return a bound on an angle with one digit, or whole degrees; "?" if there is none."""
    if degrees >= 90:
        return "?"
    return f"<{degrees:.1g}°" if degrees < 9.5 else f"<{np.ceil(degrees):.0f}°"


def dense_vectors(s: Spectrum) -> np.ndarray:
    """Return the eigenvectors over all weights, 0 at dead ones, (top, all)."""
    if not s.alive.size:
        return s.vectors
    full = np.zeros((len(s.vectors), sum(s.sizes)), s.vectors.dtype)
    full[:, np.unpackbits(s.alive, count=sum(s.sizes)).astype(bool)] = s.vectors
    return full


def transfer(start: Spectrum, problem: Problem) -> Tensor:
    """Return the eigenvectors of another spectrum in the live coordinates of `problem`."""
    sizes = {name: shape.numel() for name, shape in problem.live.shapes.items()}
    if dict(zip(start.names, start.sizes, strict=True)) != sizes:
        raise ValueError("the start is a spectrum of other weights; need one of the same network")
    if np.array_equal(start.alive, problem.live.bits()):
        return torch.from_numpy(start.vectors)
    full = torch.from_numpy(dense_vectors(start))
    return full if problem.live.index is None else full[:, problem.live.index.cpu()]
