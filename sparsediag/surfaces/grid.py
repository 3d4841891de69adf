"""Evaluate the points of a grid: all of them, a shard, or as many as a smooth surface needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsediag.core.fingerprint import fingerprint
from sparsediag.core.short_repr import short_repr
from sparsediag.surfaces.adaptive import adaptive_values
from sparsediag.surfaces.evaluate import LossEvaluator
from sparsediag.surfaces.parallel import parallel_evaluator
from sparsediag.surfaces.point_log import PointLog

MISSING, DONE, OVERFLOW, INTERPOLATED = range(4)
CHECKED = 5  # points at which a lower precision is compared with float32


@dataclass(frozen=True)
class GridValues:
    """Values at the points of a grid.

    Attributes:
        loss: In the grid's shape; NaN where a point is missing.
        accuracy: In the grid's shape; NaN where a point is missing or interpolated.
        status: MISSING, DONE, OVERFLOW (not finite) or INTERPOLATED, in the grid's shape.
        held_out: Largest error of interpolation on held-out points, as a share of the range.
        rounding: Largest relative error of a lower precision at the points where it was checked.
    """

    loss: np.ndarray
    accuracy: np.ndarray
    status: np.ndarray
    held_out: float
    rounding: float

    __repr__ = short_repr


def evaluate_grid(
    evaluator: LossEvaluator,
    grid: np.ndarray,
    *,
    adaptive: bool = False,
    tol: float = 0.01,
    shard: str | None = None,
    jobs: int = 1,
    resume: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GridValues:
    """Compute loss and accuracy at the points of a grid.

    Args:
        evaluator: Computes a point.
        grid: Coordinates of the points, (..., directions of the plane).
        adaptive: Interpolate where that is accurate enough; see `adaptive_values`.
        tol: Accepted error of the interpolation, as a share of the range of the loss.
        shard: "i/n" for the i-th of n parts; the first is 1/n.
        jobs: Processes.
        resume: File that records the points; those that it holds are not computed again.
        progress: Called as `progress(points, all)`.

    Raises:
        ValueError: If the options do not fit the grid.
        CheckpointError: If `resume` holds points of another grid.
    """
    plane = evaluator.plane
    shape, points = grid.shape[:-1], grid.reshape(-1, grid.shape[-1])
    indices = range(len(points)) if shard is None else shard_indices(shard, len(points))
    if adaptive and (shard is not None or plane.lines or len(shape) != 2):
        raise ValueError("an adaptive grid needs a plane and all of its points: no shard, dims=2")
    if not 0 < tol < 1:
        raise ValueError(f"tol={tol}: need a share of the range between 0 and 1")
    about = plane.problem.digests | {
        "directions": fingerprint("", [plane.directions]),
        "grid": fingerprint(f"{grid.tolist()}", []),
        "options": f"{evaluator.statistics} {evaluator.precision}",
        "shard": shard or "all",
    }
    with parallel_evaluator(evaluator, jobs) as compute, PointLog(resume, about) as log:

        def fetch(numbers: np.ndarray) -> np.ndarray:
            missing = [int(i) for i in numbers if int(i) not in log.values]
            for i, values in zip(missing, compute(points[missing]), strict=True):
                log.add(i, *values)
                if progress:
                    progress(len(log.values), len(indices))
            return np.array([log.values[int(i)][0] for i in numbers])

        if adaptive:
            surface, held_out = adaptive_values((shape[0], shape[1]), fetch, tol=tol)
            loss = surface.ravel()
        else:
            fetch(np.array(indices))
            loss, held_out = np.full(len(points), np.nan), 0.0
    done, values = list(log.values), np.array([*log.values.values()])
    accuracy = np.full(len(points), np.nan)
    loss[done], accuracy[done] = values.T
    status = np.full(len(points), INTERPOLATED if adaptive else MISSING, np.uint8)
    status[done] = np.where(np.isfinite(loss[done]), DONE, OVERFLOW)
    rounding = 0.0
    if evaluator.precision != "float32":
        rounding = _rounding_error(evaluator, points[status == DONE], loss[status == DONE])
    grids = (loss.reshape(shape), accuracy.reshape(shape), status.reshape(shape))
    return GridValues(*grids, held_out, rounding)


def _rounding_error(evaluator: LossEvaluator, points: np.ndarray, loss: np.ndarray) -> float:
    """Return the largest relative error of the loss at some of the points."""
    checked = np.linspace(0, len(points) - 1, min(CHECKED, len(points))).astype(int)
    exact = np.array([evaluator(points[i], precision="float32")[0] for i in checked])
    errors = np.abs(loss[checked] - exact) / np.maximum(np.abs(exact), 1e-6)
    return float(errors.max(initial=0))


def merge_shards(shards: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """Return loss, accuracy and status of a grid from those of its shards.

    Raises:
        ValueError: If a point is in none of them.
    """
    merged = [values.copy() for values in shards[0]]
    for shard in shards[1:]:
        for target, values in zip(merged, shard, strict=True):
            np.copyto(target, values, where=shard[2] != MISSING)
    if missing := int((merged[2] == MISSING).sum()):
        raise ValueError(f"{missing} points are in none of {len(shards)} shards; give them all")
    return merged


def shard_indices(shard: str, points: int) -> range:
    """Return the numbers of the points of a shard "i/n".

    >>> list(shard_indices("2/3", 8))
    [1, 4, 7]
    """
    i, _, n = shard.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n) <= points):
        raise ValueError(
            f"shard '{shard}': need i/n with 1 <= i <= n <= {points}, 1/4 for the first quarter"
        )
    return range(int(i) - 1, points, int(n))
