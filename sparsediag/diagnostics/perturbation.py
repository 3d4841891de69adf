"""Perturbation: the loss along the top Hessian eigenvectors (Yao et al., 2020; ToST, Fig 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparsediag.core.problem import Problem
from sparsediag.core.progress import track
from sparsediag.curvature.operator import Curvature
from sparsediag.diagnostics.result import Result, source, table_rows
from sparsediag.diagnostics.spectrum import Spectrum, spectrum
from sparsediag.diagnostics.traits import InReport, Traits, diagnostic
from sparsediag.surfaces import directions
from sparsediag.surfaces.evaluate import LossEvaluator
from sparsediag.surfaces.plane import plane_from_vectors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VALID = 0.1  # error of the quadratic model up to which it is valid, of |t g.v| + |t^2/2 v.Hv|
ROUNDING = 10  # rounding errors of a loss or a product that count as noise
LADDER = 2.0 ** np.arange(-2, 7)  # steps of the second difference, in units of a balanced one


@dataclass(frozen=True, kw_only=True, eq=False)
class Perturbation(Result):
    """The loss L(w + t v) along each eigenvector v, and its quadratic model.

    Attributes:
        distance: t, the Euclidean distance from the weights, (points,).
        loss: The loss, (top, points); NaN or infinite where it overflows.
        accuracy: The accuracy, (top, points); NaN if the outputs are not class scores.
        quadratic: The model L + t g.v + t^2/2 v.Hv, with L, g and H at the weights, (top, points).
        curvature: v.Hv on this loss, (top,).
        centre: The loss at the weights.
        also_loss: Another loss along the same vectors, (top, points); (0, 0) without one.
        also_centre: That loss at the weights.
        radius: Distance up to which the model is valid towards -v and +v, (top, 2): up to there the
            loss is finite, and differs from it by at most 10 % of |t g.v| + |t^2/2 v.Hv| or by
            rounding. 0 if it fails at the first point, the end of the axis if it never does.
        second: Second difference (L(h) - 2 L(0) + L(-h)) / h^2, (top,), at the step h of a ladder
            where its error is least.
        second_error: Error of `second`, (top,): twice its distance to the values at h/2 and 2h, and
            rounding.
        expected: Expected value of `second`, (top,): the eigenvalue, or v.Hv if the vectors are not
            eigenvectors of this loss.
        reach: Error of `expected`, (top,).
        eigenvalues: Eigenvalues of the vectors on the loss that they were computed on, (top,).
        weight_norm: |w| over the live weights, for relative distances.
        doubts: Reasons to doubt the eigenvectors, the gradient or the products, one line each.
        converged: True if there is no doubt.
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
    doubts: list[str] = field(default_factory=list)
    converged: bool = True

    @property
    def agrees(self) -> np.ndarray:
        """Return True where |second - expected| <= second_error + reach, (top,)."""
        return np.asarray(abs(self.second - self.expected) <= self.second_error + self.reach)

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each eigenvector: curvature, rise of the loss, range of the model."""
        second = zip(self.second, self.second_error, strict=True)
        low, high = self.distance[[0, -1]]
        return table_rows(
            {
                "eigenvector": (range(1, len(self.loss) + 1), ""),
                "eigenvalue": (self.eigenvalues, ".6g"),
                "curvature": (self.curvature, ".6g"),
                "second difference": ([f"{d:.6g} ± {error:.1g}" for d, error in second], ""),
                "agrees": (np.where(self.agrees, "yes", np.where(self.kinks, "kinks", "no")), ""),
                f"rise at {low:g}": (self.loss[:, 0] - self.centre, ".4g"),
                f"rise at {high:g}": (self.loss[:, -1] - self.centre, ".4g"),
                "model valid to": ([f"{0 - m:.3g} / +{p:.3g}" for m, p in self.radius], ""),
            }
        )

    @property
    def kinks(self) -> np.ndarray:
        """Return True where only kinks of the loss, as of ReLUs, make the two differ, (top,)."""
        return np.asarray(~self.agrees & (abs(self.curvature - self.expected) <= self.reach))

    @property
    def findings(self) -> list[str]:
        """Return the doubts, and eigenvectors whose v.Hv is not the eigenvalue."""
        line = (
            f"v.Hv differs from {self._expectation} ({self._differences(~self.agrees)}), so the "
            "eigenpairs are those of another loss: compute them on this one"
        )
        return [*self.doubts, line] if (~self.agrees & ~self.kinks).any() else self.doubts

    def _differences(self, chosen: np.ndarray) -> str:
        """Return the differences of some eigenvectors in words."""
        gaps = self.second - self.expected
        return "eigenvector " + ", ".join(f"{i + 1} by {gaps[i]:+.2g}" for i in np.where(chosen)[0])

    def remarks(self) -> list[str]:
        """Return findings about the second differences and the range of the quadratic model."""
        lines = [f"doubt: {line}" for line in self.findings]
        if self.agrees.all():
            lines.append(f"second differences agree with {self._expectation}")
        if self.kinks.any():
            lines.append(
                "kinks of the loss (ReLU, max pooling) within the step change the second "
                f"difference ({self._differences(self.kinks)}); the eigenvalue is the curvature "
                "between them"
            )
        vague = self.agrees & (self.second_error > VALID * abs(self.expected))
        if vague.any():
            numbers = ", ".join(str(i + 1) for i in np.flatnonzero(vague))
            lines.append(
                f"kinks or rounding blur the second difference (eigenvector {numbers}), so its "
                "agreement says little"
            )
        valid = [f"{i} from {0 - m:.3g} to {p:.3g}" for i, (m, p) in enumerate(self.radius, 1)]
        return [
            *lines,
            f"the quadratic model is valid to {VALID:.0%} (eigenvector {', '.join(valid)})",
        ]

    @property
    def _expectation(self) -> str:
        same = np.array_equal(self.expected, self.eigenvalues)
        return "the eigenvalues" if same else "v.Hv"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the loss along each eigenvector; the other loss dotted; the model dashed.

        Ticks on the model show the range in which it is valid.
        """
        from sparsediag.plotting import style

        ax, t, norm = ax or style.new_axes(), self.distance, self.weight_norm
        for i, (loss, model) in enumerate(zip(self.loss, self.quadratic, strict=True)):
            colour = style.COLOURS[i % len(style.COLOURS)]
            ends = (1 + np.flatnonzero(np.isin(t[1:-1], self.radius[i] * [-1, 1]))).tolist()
            hidden = "_" * (i < len(self.loss) - 1)  # one entry of the legend for all vectors
            ax.plot(t, loss, c=colour, label=f"eigenvector {i + 1}")
            label = f"{hidden}quadratic model, valid to |"
            ax.plot(t, model, "|--", c=colour, lw=0.8, ms=8, markevery=ends, label=label)
            if len(self.also_loss):
                ax.plot(t, self.also_loss[i], ":", c=colour, label=f"{hidden}the other loss")
        losses = np.array([self.centre, *self.loss.flat, *self.also_loss.flat])
        low, high = losses[np.isfinite(losses)].min(), losses[np.isfinite(losses)].max()
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
    """Compute the loss along the Hessian's top eigenvectors, and its quadratic model (ToST, Fig 8).

    Args:
        problem: The loss.
        top: Number of eigenvectors.
        points: Points on each line.
        span: Largest distance from the weights, towards -v and +v.
        relative: Measure the span in units of |w|, the norm of the live weights.
        tol: Relative residual of the eigenvectors.
        seed: Seed of the eigensolver.
        along: Eigenvectors to follow instead, such as those of the training loss on the test loss.
        also: Another loss of the same network to compute along them, such as the test loss.
        progress: Called as `progress(points done, all points)`.

    Returns:
        The loss and its model, (top, points) each, and the range in which they agree.

    Raises:
        ValueError: If `along` or `also` has other live weights, or an option is invalid.

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
        raise ValueError(
            f"also has {also.size} other live weights; use the network and mask of the problem"
        )
    pairs = along or spectrum(problem, top=top, tol=tol, seed=seed)
    if pairs.vectors.shape[1] != problem.size:
        raise ValueError(
            f"the eigenvectors have {pairs.vectors.shape[1]} coordinates, the problem has "
            f"{problem.size} live weights; use the spectrum of the same network and mask"
        )
    vectors = torch.from_numpy(pairs.vectors[:top]).to(problem.weights)
    units, labels = np.eye(len(vectors)), [f"eigenvector {i + 1}" for i in range(len(vectors))]
    lines = [plane_from_vectors(p, vectors.to(p.weights), labels) for p in (problem, also) if p]
    evaluators = [LossEvaluator(line) for line in lines]
    centre, *other_centre = (evaluate.centre_loss for evaluate in evaluators)
    values = np.empty((len(evaluators), 2, len(units), points))  # loss and accuracy
    for s, i, j in track(list(np.ndindex(len(evaluators), len(units), points)), progress):
        values[s, :, i, j] = evaluators[s](distance[j] * units[i])
    loss, accuracy = values[0]
    origin, doubts = pairs.source["options"], list(pairs.doubts)
    same = pairs.source["problem"] == problem.digest
    same &= (origin["matrix"], origin["norm"]) == ("hessian", "none")
    expected, reach = pairs.eigenvalues[:top], np.diff(pairs.intervals[:top])[:, 0] / 2
    if along is None:  # found just now on this loss, so that they are v.Hv
        gradient, curvature = problem.gradient(), expected
    else:
        hessian = Curvature(problem)
        gradient, products = hessian.gradient, torch.stack([hessian(v) for v in vectors])
        curvature = (vectors * products).sum(dim=1).double().cpu().numpy()
        if not same:
            expected = curvature
            reach = ROUNDING * eps * products.norm(dim=1).double().cpu().numpy()
            doubts += [*hessian.doubts, *hessian.check(vectors[0])]
    slope = (vectors @ gradient).double().cpu().numpy()
    terms = np.outer(slope, distance), np.outer(curvature, distance**2 / 2)
    quadratic = centre + terms[0] + terms[1]
    tolerance = np.maximum(VALID * (abs(terms[0]) + abs(terms[1])), ROUNDING * eps * abs(centre))
    close = abs(loss - quadratic) <= tolerance
    sides = np.flatnonzero(distance < 0)[::-1], np.flatnonzero(distance > 0)
    radius = [(close[:, s].cumprod(axis=1) * abs(distance[s])).max(axis=1) for s in sides]
    second = [
        _second_difference(evaluators[0], unit, curv, norm, eps)
        for unit, curv in zip(units, curvature, strict=True)
    ]
    options = {"top": top, "points": points, "span": span, "relative": relative}
    return Perturbation(
        distance=distance,
        loss=loss,
        accuracy=accuracy,
        quadratic=quadratic,
        curvature=curvature,
        centre=centre,
        also_loss=values[1, 0] if also else np.zeros((0, 0)),
        also_centre=other_centre[0] if also else None,
        radius=np.stack(radius, axis=1),
        second=np.array([value for value, _ in second]),
        second_error=np.array([error for _, error in second]),
        expected=expected,
        reach=reach,
        eigenvalues=pairs.eigenvalues[:top],
        weight_norm=norm,
        doubts=list(dict.fromkeys(doubts)),
        converged=not doubts,
        source=source(problem, **options, also=also and also.digest)
        | {"spectrum": pairs.source, "residuals": pairs.residuals.tolist()},
    )


def _second_difference(
    evaluate: LossEvaluator, unit: np.ndarray, curvature: float, norm: float, eps: float
) -> tuple[float, float]:
    """Return the second difference of the loss along a vector, and its error.

    If the loss changes by L within a distance d, the errors of truncation, L'''' h^2 / 12, and of
    rounding, 4 eps L / h^2, are equal at about h = eps^(1/4) d, with d = sqrt(L / |v.Hv|) or |w| if
    that is smaller.
    """
    centre = evaluate(0 * unit)[0]
    d = abs(centre / curvature) ** 0.5 if centre and curvature else np.inf
    h = LADDER * eps**0.25 * min(d, norm or 1.0)
    with np.errstate(invalid="ignore"):
        second = (
            np.array([evaluate(t * unit)[0] - 2 * centre + evaluate(-t * unit)[0] for t in h])
            / h**2
        )
        change = abs(np.diff(second))
        error = 2 * (change[:-1] + change[1:]) + 4 * eps * abs(centre) / h[1:-1] ** 2
    best = int(np.nan_to_num(error, nan=np.inf).argmin())
    return float(second[1 + best]), float(error[best])
