"""Perturbation: the loss along the top Hessian eigenvectors (Yao et al., 2020; ToST, Fig 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparsediag import directions
from sparsediag.diagnostics.spectrum import Spectrum, spectrum
from sparsediag.problem import Problem
from sparsediag.result import Result, source

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, eq=False)
class Perturbation(Result):
    """The loss at `weights + t v` for each eigenvector v.

    Attributes:
        distance: t, the Euclidean distance from the weights, (points,).
        loss: (top, points).
        quadratic: L + t g.v + t^2/2 v.Hv with L, g and H at the weights, (top, points).
        curvature: v.Hv on this loss, (top,); the eigenvalue if v is an eigenvector of this loss.
        centre: The loss at the weights.
        eigenvalues: Of the eigenvectors on the loss that they were computed on, (top,).
        weight_norm: |w| over the live weights, for distances relative to it.
    """

    distance: np.ndarray
    loss: np.ndarray
    quadratic: np.ndarray
    curvature: np.ndarray
    centre: float
    eigenvalues: np.ndarray
    weight_norm: float

    def table(self) -> list[dict[str, Any]]:
        """One row an eigenvector: curvature and the rise of the loss at both ends."""
        return [
            {
                "eigenvector": str(i + 1),
                "eigenvalue": f"{self.eigenvalues[i]:.6g}",
                "curvature": f"{self.curvature[i]:.6g}",
                f"rise at {self.distance[0]:g}": f"{self.loss[i, 0] - self.centre:.4g}",
                f"rise at {self.distance[-1]:g}": f"{self.loss[i, -1] - self.centre:.4g}",
            }
            for i in range(len(self.loss))
        ]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Loss along each eigenvector, with the quadratic model dashed."""
        from sparsediag import plotting

        ax = ax or plotting.axes()
        for i, (loss, model) in enumerate(zip(self.loss, self.quadratic, strict=True)):
            colour = plotting.COLOURS[i % len(plotting.COLOURS)]
            ax.plot(self.distance, loss, color=colour, label=f"eigenvector {i + 1}")
            ax.plot(self.distance, model, color=colour, ls="--", lw=0.8)
        ax.set(xlabel="distance along the eigenvector", ylabel="loss")
        finite = self.loss[np.isfinite(self.loss)]
        ax.set_ylim(top=1.05 * float(finite.max(initial=self.centre)))
        ax.legend()
        return ax


def perturbation(
    problem: Problem,
    *,
    top: int = 1,
    points: int = 41,
    span: float = 0.5,
    tol: float = 1e-3,
    seed: int = 0,
    along: Spectrum | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Perturbation:
    """The loss along the top eigenvectors of the Hessian, beside its quadratic model.

    Args:
        problem: The loss.
        top: Number of eigenvectors.
        points: Points on each line.
        span: Distance each way, in weight space.
        tol: Relative residual of the eigenvectors.
        seed: Seed of the eigensolver.
        along: Eigenvectors to follow instead: those of the training loss, say, to see the test
            loss along them.
        progress: Called as `progress(points, all)`.

    Raises:
        ValueError: If `along` belongs to a net with other live weights.

    >>> from torch import nn
    >>> problem = Problem(nn.Linear(2, 1), [(torch.eye(2), torch.ones(2, 1))], loss=nn.MSELoss())
    >>> p = perturbation(problem, points=3)
    >>> bool(np.allclose(p.loss, p.quadratic))
    True
    """
    distance = directions.steps(points, span)
    pairs = along or spectrum(problem, top=top, tol=tol, seed=seed)
    if pairs.vectors.shape[1] != problem.size:
        raise ValueError(
            f"the eigenvectors have {pairs.vectors.shape[1]} coordinates, the problem has "
            f"{problem.size} live weights; use the spectrum of the same net and mask"
        )
    vectors = [torch.from_numpy(v).to(problem.weights) for v in pairs.vectors[:top]]
    loss = np.empty((len(vectors), points))
    for i, v in enumerate(vectors):
        for j, t in enumerate(distance):
            loss[i, j] = problem.value(problem.weights.add(v, alpha=float(t)))
            if progress:
                progress(i * points + j + 1, loss.size)
    gradient, centre = problem.gradient(), problem.value()
    slope = np.array([float(gradient @ v) for v in vectors])
    curvature = np.array([float(v @ problem.hvp(v)) for v in vectors])
    return Perturbation(
        distance=distance,
        loss=loss,
        quadratic=centre + np.outer(slope, distance) + np.outer(curvature, distance**2 / 2),
        curvature=curvature,
        centre=centre,
        eigenvalues=pairs.eigenvalues[: len(vectors)],
        weight_norm=float(problem.weights.norm()),
        source=source(problem, top=top, points=points, span=span)
        | {"spectrum": pairs.source, "residuals": pairs.residuals.tolist()},
    )
