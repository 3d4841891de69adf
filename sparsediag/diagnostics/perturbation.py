"""Perturbation: the loss along the top Hessian eigenvectors (Yao et al., 2020; ToST, Fig 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparsediag.core.problem import Problem
from sparsediag.diagnostics.result import Result, source
from sparsediag.diagnostics.spectrum import Spectrum, spectrum
from sparsediag.diagnostics.traits import InReport, Traits, diagnostic
from sparsediag.surfaces import directions
from sparsediag.surfaces.evaluate import LossEvaluator
from sparsediag.surfaces.plane import plane_from_vectors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VALID = 0.1  # of |t g.v| + |t^2/2 v.Hv|: as far as the loss may be from the model
ROUNDING = 10  # rounding errors of a loss or a product that count as noise
LADDER = 2.0 ** np.arange(-2, 7)  # steps of the second difference; at 1 its errors should balance


@dataclass(frozen=True, kw_only=True, eq=False)
class Perturbation(Result):
    """The loss at `weights + t v` for each eigenvector v.

    Attributes:
        distance: t, the Euclidean distance from the weights, (points,).
        loss: (top, points). NaN or infinity where it overflows.
        accuracy: (top, points), NaN where the outputs are not a row of scores each.
        quadratic: L + t g.v + t^2/2 v.Hv with L, g and H at the weights, (top, points).
        curvature: v.Hv on this loss, (top,); the eigenvalue if v is an eigenvector of this loss.
        centre: The loss at the weights.
        also_loss: Another loss along the same vectors, (top, points); (0, 0) if none was asked for.
        also_centre: That loss at the weights.
        radius: Distance to the last point towards minus and plus up to which the model is valid,
            (top, 2): the loss is finite and off it by at most 10 % of |t g.v| + |t^2/2 v.Hv|, or
            by rounding. 0 if not at the first point, the end of the axis if everywhere.
        second: (L(h) - 2 L(0) + L(-h)) / h^2 at that step of a ladder with the least error, (top,).
        second_error: Twice its distances to those at the steps h/2 and 2h, and rounding, (top,).
        expected: What it should be, (top,): the eigenvalue, or v.Hv if v comes from elsewhere.
        reach: Half the width of the interval to which `expected` is certain, (top,).
        eigenvalues: Of the eigenvectors on the loss that they were computed on, (top,).
        weight_norm: |w| over the live weights, for distances relative to it.
    """

    distance: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    quadratic: np.ndarray
    curvature: np.ndarray
    centre: float
    also_loss: np.ndarray
    also_centre: float | None
    radius: np.ndarray
    second: np.ndarray
    second_error: np.ndarray
    expected: np.ndarray
    reach: np.ndarray
    eigenvalues: np.ndarray
    weight_norm: float

    @property
    def agrees(self) -> np.ndarray:
        """Return whether |second - expected| <= second_error + reach, (top,)."""
        return np.asarray(abs(self.second - self.expected) <= self.second_error + self.reach)

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each eigenvector: curvature, rise of the loss, range of the model."""
        return [
            {
                "eigenvector": str(i + 1),
                "eigenvalue": f"{self.eigenvalues[i]:.6g}",
                "curvature": f"{self.curvature[i]:.6g}",
                "second difference": f"{self.second[i]:.6g} ± {self.second_error[i]:.1g}",
                "agrees": "yes" if self.agrees[i] else "no",
                f"rise at {self.distance[0]:g}": f"{self.loss[i, 0] - self.centre:.4g}",
                f"rise at {self.distance[-1]:g}": f"{self.loss[i, -1] - self.centre:.4g}",
                "valid to": f"{0 - minus:.3g} / +{plus:.3g}",
            }
            for i, (minus, plus) in enumerate(self.radius)
        ]

    @property
    def findings(self) -> list[str]:
        """Return the line about second differences that differ from the eigenvalues."""
        return [line for line in self.remarks() if line.startswith("second differences differ")]

    def remarks(self) -> list[str]:
        """Return lines about the second differences and the range of the quadratic model."""
        name = "the eigenvalues" if np.array_equal(self.expected, self.eigenvalues) else "v.Hv"
        off, blurred = abs(self.second - self.expected), VALID * abs(self.expected)
        apart = [f"{i + 1} by {off[i]:.2g}" for i in np.flatnonzero(~self.agrees)]
        vague = [str(i + 1) for i in np.flatnonzero(self.agrees & (self.second_error > blurred))]
        valid = [f"{i} from {0 - m:.3g} to {p:.3g}" for i, (m, p) in enumerate(self.radius, 1)]
        wrong = ~(abs(self.curvature - self.expected) <= self.reach)
        kinks = "kinks within the step (ReLU, max pooling) do that"
        cause = "v.Hv does too: wrong eigenpairs" if wrong.any() else kinks
        said = {
            f"second differences agree with {name}": not apart,
            f"second differences differ from {name}, eigenvector {', '.join(apart)}; "
            f"{cause}": apart,
            f"kinks or rounding blur the second difference, eigenvector {', '.join(vague)}": vague,
            f"the quadratic model is valid to {VALID:.0%}, eigenvector {', '.join(valid)}": 1,
        }
        return [line for line, holds in said.items() if holds]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Loss along each eigenvector, the other loss dotted, the model dashed up to its ticks."""
        from sparsediag.plotting import style

        ax, t, norm = ax or style.new_axes(), self.distance, self.weight_norm
        for i, (loss, model) in enumerate(zip(self.loss, self.quadratic, strict=True)):
            colour = style.COLOURS[i % len(style.COLOURS)]
            ends = (1 + np.flatnonzero(np.isin(t[1:-1], self.radius[i] * [-1, 1]))).tolist()
            hidden = "_" * (i < len(self.loss) - 1)
            ax.plot(t, loss, c=colour, label=f"eigenvector {i + 1}")
            label = f"{hidden}quadratic, valid to |"
            ax.plot(t, model, "|--", c=colour, lw=0.8, ms=8, markevery=ends, label=label)
            if len(self.also_loss):
                ax.plot(t, self.also_loss[i], ":", c=colour, label=f"{hidden}the other loss")
        seen = np.array([self.centre, *self.loss.flat, *self.also_loss.flat])
        low, high = seen[np.isfinite(seen)].min(), seen[np.isfinite(seen)].max()
        pad = 0.05 * (high - low) or 1.0
        ax.set(xlabel="distance along the eigenvector", ylabel="loss", ylim=(low - pad, high + pad))
        with style.style():
            ax.legend()
            if self.source["options"]["relative"]:
                scale = (lambda x: x / norm, lambda x: x * norm)
                upper = ax.secondary_xaxis("top", functions=scale)
                upper.set_xlabel("distance / |w|")
                upper.locator_params(axis="x", nbins=5)
        return ax


@diagnostic(
    Traits(
        report=InReport(
            cost=lambda points, top: top * (points + 27),  # points of the second difference
            needs={"along": "spectrum"},
        )
    )
)
def perturbation(
    problem: Problem,
    *,
    top: int = 1,
    points: int = 41,
    span: float = 0.5,
    relative: bool = False,
    tol: float = 1e-3,
    seed: int = 0,
    along: Spectrum | None = None,
    also: Problem | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Perturbation:
    """The loss along the Hessian's top eigenvectors (ToST, Figure 8), beside its quadratic model.

    Args:
        problem: The loss.
        top: Number of eigenvectors.
        points: Points on each line.
        span: Distance each way, in weight space.
        relative: Take the span in units of |w|, the norm of the live weights.
        tol: Relative residual of the eigenvectors.
        seed: Seed of the eigensolver.
        along: Eigenvectors to follow instead, such as those of the training loss on the test loss.
        also: Another loss of the same net to see along them, that on the test images, say.
        progress: Called as `progress(points, all)`.

    Raises:
        ValueError: If `along` or `also` has other live weights, or the options make no line.

    >>> from torch import nn
    >>> problem = Problem(nn.Linear(2, 1), [(torch.eye(2), torch.ones(2, 1))], loss=nn.MSELoss())
    >>> p = perturbation(problem, points=3)
    >>> bool(np.allclose(p.loss, p.quadratic, atol=1e-6)), p.agrees.tolist()
    (True, [True])
    """
    if top < 1:
        raise ValueError(f"top={top} eigenvectors: need 1 or more")
    norm, eps = float(problem.weights.norm()), float(torch.finfo(problem.weights.dtype).eps)
    if relative and not norm:
        raise ValueError("relative=True: all live weights are 0; give the span as a distance")
    distance = directions.grid_axis(points, span) * (norm if relative else 1)
    if also and also.digests["weights"] != problem.digests["weights"]:
        raise ValueError(f"also has {also.size} other live weights; use the problem's net and mask")
    pairs = along or spectrum(problem, top=top, tol=tol, seed=seed)
    if pairs.vectors.shape[1] != problem.size:
        raise ValueError(
            f"the eigenvectors have {pairs.vectors.shape[1]} coordinates, the problem has "
            f"{problem.size} live weights; use the spectrum of the same net and mask"
        )
    vectors = torch.from_numpy(pairs.vectors[:top]).to(problem.weights)
    units, labels = np.eye(len(vectors)), [f"eigenvector {i + 1}" for i in range(len(vectors))]
    lines = [plane_from_vectors(p, vectors.to(p.weights), labels) for p in (problem, also) if p]
    sweeps = [LossEvaluator(line) for line in lines]
    centre, *others = (sweep(0 * units[0])[0] for sweep in sweeps)
    seen = np.empty((len(sweeps), 2, len(units), points))
    places = list(np.ndindex(len(sweeps), len(units), points))
    for count, (s, i, j) in enumerate(places, 1):
        seen[s, :, i, j] = sweeps[s](distance[j] * units[i])
        if progress:
            progress(count, len(places))
    products = torch.stack([problem.hvp(v) for v in vectors])
    slope = (vectors @ problem.gradient()).double().cpu().numpy()
    curvature = (vectors * products).sum(dim=1).double().cpu().numpy()
    quadratic = centre + np.outer(slope, distance) + np.outer(curvature, distance**2 / 2)
    expected, reach = curvature, ROUNDING * eps * products.norm(dim=1).double().cpu().numpy()
    values, asked = pairs.eigenvalues[: len(units)], pairs.source["options"]
    same = pairs.source["problem"] == problem.digest
    if same and (asked["matrix"], asked["norm"]) == ("hessian", "none"):
        expected, reach = values, np.diff(pairs.intervals[: len(units)])[:, 0] / 2
    terms = np.outer(abs(slope), abs(distance)) + np.outer(abs(curvature), distance**2 / 2)
    close = abs(seen[0, 0] - quadratic) <= np.maximum(VALID * terms, ROUNDING * eps * abs(centre))
    sides = np.flatnonzero(distance < 0)[::-1], np.flatnonzero(distance > 0)
    ends = [(close[:, s].cumprod(axis=1) * abs(distance[s])).max(axis=1) for s in sides]
    second = [_second(sweeps[0], *of, norm, eps) for of in zip(units, curvature, strict=True)]
    options = {"top": top, "points": points, "span": span, "relative": relative}
    return Perturbation(
        distance=distance,
        loss=seen[0, 0],
        accuracy=seen[0, 1],
        quadratic=quadratic,
        curvature=curvature,
        centre=centre,
        also_loss=seen[1, 0] if also else np.zeros((0, 0)),
        also_centre=others[0] if also else None,
        radius=np.stack(ends, axis=1),
        second=np.array([value for value, _ in second]),
        second_error=np.array([error for _, error in second]),
        expected=expected,
        reach=reach,
        eigenvalues=values,
        weight_norm=norm,
        source=source(problem, **options, also=also and also.digest)
        | {"spectrum": pairs.source, "residuals": pairs.residuals.tolist()},
    )


def _second(
    sweep: LossEvaluator, unit: np.ndarray, curvature: float, norm: float, eps: float
) -> tuple[float, float]:
    """The second difference along a vector, and its error.

    Where the loss changes by L within a distance d, truncation, L''''h^2/12, and rounding,
    4 eps L/h^2, balance at about h = eps^(1/4) d; d is sqrt(L/|v.Hv|), but at most |w|.
    """
    centre = sweep(0 * unit)[0]
    d = abs(centre / curvature) ** 0.5 if centre and curvature else np.inf
    h = LADDER * eps**0.25 * min(d, norm or 1.0)
    with np.errstate(invalid="ignore"):
        found = np.array([sweep(t * unit)[0] - 2 * centre + sweep(-t * unit)[0] for t in h]) / h**2
        apart = abs(np.diff(found))
        error = 2 * (apart[:-1] + apart[1:]) + 4 * eps * abs(centre) / h[1:-1] ** 2
    best = int(np.nan_to_num(error, nan=np.inf).argmin())
    return float(found[1 + best]), float(error[best])
