"""Checks of a landscape: what to know before believing the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsediag.core.losses import logits
from sparsediag.core.problem import Problem
from sparsediag.surfaces.evaluate import LossEvaluator
from sparsediag.surfaces.plane import Plane

NORMS = nn.modules.batchnorm._BatchNorm
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def check_plane(plane: Plane, sweep: LossEvaluator, *, expected: float | None = None) -> list[str]:
    """Findings on the net, its data and the directions, before the first point.

    Args:
        plane: What is looked at.
        sweep: How it is.
        expected: The loss that the net is said to have on these samples.
    """
    problem, origin = plane.problem, np.zeros(len(plane.directions))
    said = list(plane.doubts)
    cosines = np.abs(np.triu(plane.gram, 1))
    if cosines.max() > 0.3 and not (plane.lines or plane.stops):
        said.append(f"the axes have a cosine of {cosines.max():.2f}; orthogonal=True mends it")
    trained = [m for m in problem.net.modules() if m.training and isinstance(m, (NORMS, *DROPOUTS))]
    if trained and problem.batch_norm == "eval":
        said.append("the net came in training mode; it was measured in evaluation mode")
    said += _samples(problem)
    here, own = sweep(origin)[0], problem.value()
    if abs(here - own) > 1e-3 * max(1.0, abs(own)) and sweep.statistics == "fixed":
        said.append(f"the loss at the centre is {here:.5g}, that of the net itself {own:.5g}")
    if expected is not None and abs(own - expected) > 0.01 * max(1.0, abs(expected)):
        said.append(f"the loss of the net is {own:.4g}, its training recorded {expected:.4g}")
    if sweep.statistics == "fixed" and problem.batch_norm == "eval":
        said += _stale(plane, own)
    return said


def _stale(plane: Plane, own: float) -> list[str]:
    """Return whether other statistics of batch norm would make the loss much lower."""
    problem = plane.problem
    if problem.samples < 2 or not any(isinstance(m, NORMS) for m in problem.net.modules()):
        return []
    anew = LossEvaluator(plane, statistics="estimate")(np.zeros(len(plane.directions)))[0]
    if not own > 1.5 * anew + 0.05:
        return []
    return [
        f"batch norm's running statistics are stale: the loss is {own:.3g} with them, {anew:.3g} "
        "with those of these samples; use statistics='estimate'"
    ]


def _samples(problem: Problem) -> list[str]:
    labels, (x, _) = [y for _, y in problem.batches], next(iter(problem.batches))
    with problem.evaluation_mode(), torch.no_grad():
        z = logits(problem.forward(problem.split(problem.weights), x))
    if not isinstance(z, Tensor) or z.dim() != 2 or not all(map(_classes, labels)):
        return []
    seen, classes = len(torch.cat(labels).unique()), z.shape[1]
    return [f"only {seen} of {classes} classes are among the samples"] if seen < classes else []


def _classes(targets: Any) -> bool:
    return isinstance(targets, Tensor) and targets.dim() == 1 and not targets.is_floating_point()


def check_grid(loss: np.ndarray, centre: float, *, axes: int) -> list[str]:
    """Findings on the values of a finished grid.

    Args:
        loss: (points,), (points, points), or (lines, points) with one axis.
        centre: The loss in the middle of what was looked at.
        axes: How many of the last dimensions are distances.
    """
    finite = loss[np.isfinite(loss)]
    said = []
    if finite.size < loss.size:
        said.append(f"{loss.size - finite.size} of {loss.size} points are not finite")
    if finite.size < 3:
        return [*said, "too few points are finite to see anything; use a smaller span"]
    low, high = float(finite.min()), float(finite.max())
    if high - low < 1e-3 * max(abs(centre), 1e-6):
        return [*said, f"the loss changes by {high - low:.1e} only; use a larger span"]
    if (loss < low + 0.05 * (high - low)).mean() < 0.01:
        said.append("the basin is smaller than a hundredth of the picture; use a smaller span")
    coarse = max(_jumps(np.moveaxis(loss, -1 - axis, 0)) for axis in range(axes))
    if coarse > 0.15 * (high - low):
        said.append(
            f"the grid is coarse: points miss the mean of their neighbours by {coarse:.2g}; "
            "use more points or a smaller span"
        )
    return said


def _jumps(loss: np.ndarray) -> float:
    """The largest distance between a point and the mean of its two neighbours."""
    if len(loss) < 3:
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(loss[1:-1] - (loss[:-2] + loss[2:]) / 2)
    return float(apart[np.isfinite(apart)].max(initial=0))
