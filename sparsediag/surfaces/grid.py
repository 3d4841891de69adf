"""Values at the points of a grid: all of them, a shard, or as many as are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsediag.core.fingerprint import fingerprint
from sparsediag.surfaces.adaptive import adaptive_values
from sparsediag.surfaces.evaluate import LossEvaluator, Precision, Statistics
from sparsediag.surfaces.parallel import computing
from sparsediag.surfaces.plane import Plane
from sparsediag.surfaces.point_log import PointLog

MISSING, DONE, OVERFLOW, INTERPOLATED = range(4)
CHECKED = 5  # points at which a lower precision is compared with float32


@dataclass(frozen=True)
class GridValues:
    """Values at the points of a grid.

    Attributes:
        loss: In the grid's shape; nan where a point is missing.
        accuracy: Likewise, nan where it was interpolated too.
        status: MISSING, DONE, OVERFLOW (not finite) or INTERPOLATED.
        held_out: Largest error of interpolation on points held back, of the range.
        rounding: Largest relative error of a lower precision where it was checked.
    """

    loss: np.ndarray
    accuracy: np.ndarray
    status: np.ndarray
    held_out: float
    rounding: float


def evaluate_grid(
    plane: Plane,
    grid: np.ndarray,
    *,
    statistics: Statistics = "fixed",
    precision: Precision = "float32",
    adaptive: bool = False,
    tol: float = 0.01,
    shard: str | None = None,
    jobs: int = 1,
    resume: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GridValues:
    """Compute a grid.

    Args:
        plane: Where it lies.
        grid: Coordinates of its points, (..., directions of the plane).
        statistics: Of batch norm; see `LossEvaluator`.
        precision: See `LossEvaluator`.
        adaptive: Interpolate where that is good enough; see `adaptive_values`.
        tol: Its error, as a share of the range.
        shard: "i/n" for the i-th of n parts, 1/n the first.
        jobs: Processes.
        resume: File that keeps the points as they come; what it holds is not computed again.
        progress: Called as `progress(points, all)`.
    """
    shape, places = grid.shape[:-1], grid.reshape(-1, grid.shape[-1])
    mine = range(len(places)) if shard is None else shard_indices(shard, len(places))
    if adaptive and (shard is not None or plane.lines or len(shape) != 2):
        raise ValueError("an adaptive grid needs a plane and all of its points: no shard, dims=2")
    if not 0 < tol < 1:
        raise ValueError(f"tol={tol}: need a share of the range between 0 and 1")
    options = {"statistics": statistics, "precision": precision}
    about = plane.problem.digests | {
        "directions": fingerprint("", [plane.directions]),
        "grid": fingerprint(f"{grid.tolist()}", []),
        "options": f"{statistics} {precision}",
        "shard": shard or "all",
    }
    with computing(plane, jobs=jobs, **options) as compute, PointLog(resume, about) as points:

        def fetch(numbers: np.ndarray) -> np.ndarray:
            todo = [int(i) for i in numbers if int(i) not in points.values]
            for i, values in zip(todo, compute(places[todo]), strict=True):
                points.add(i, *values)
                if progress:
                    progress(len(points.values), len(mine))
            return np.array([points.values[int(i)][0] for i in numbers])

        if adaptive:
            surface, held_out = adaptive_values((shape[0], shape[1]), fetch, tol=tol)
            loss = surface.ravel()
        else:
            fetch(np.array(mine))
            loss, held_out = np.full(len(places), np.nan), 0.0
    done, values = list(points.values), np.array([*points.values.values()])
    accuracy = np.full(len(places), np.nan)
    loss[done], accuracy[done] = values.T
    status = np.full(len(places), INTERPOLATED if adaptive else MISSING, np.uint8)
    status[done] = np.where(np.isfinite(loss[done]), DONE, OVERFLOW)
    rounding = 0.0
    if precision != "float32":
        finite = np.flatnonzero(status == DONE)
        tried = finite[np.linspace(0, len(finite) - 1, min(CHECKED, len(finite))).astype(int)]
        sweep = LossEvaluator(plane, statistics=statistics)
        exact = np.array([sweep(places[i])[0] for i in tried])
        off = np.abs(loss[tried] - exact) / np.maximum(np.abs(exact), 1e-6)
        rounding = float(off.max(initial=0))
    grids = (loss.reshape(shape), accuracy.reshape(shape), status.reshape(shape))
    return GridValues(*grids, held_out, rounding)


def merge_shards(shards: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """Loss, accuracy and status of a grid from those of its shards.

    Raises:
        ValueError: If a point is in none of them.
    """
    whole = [values.copy() for values in shards[0]]
    for shard in shards[1:]:
        for mine, its in zip(whole, shard, strict=True):
            np.copyto(mine, its, where=shard[2] != MISSING)
    if missing := int((whole[2] == MISSING).sum()):
        raise ValueError(f"{missing} points are in none of {len(shards)} shards; give them all")
    return whole


def shard_indices(shard: str, points: int) -> range:
    """The points of a shard "i/n".

    >>> list(shard_indices("2/3", 8))
    [1, 4, 7]
    """
    i, _, n = shard.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n) <= points):
        raise ValueError(
            f"shard '{shard}': need i/n with 1 <= i <= n <= {points}, 1/4 for the first quarter"
        )
    return range(int(i) - 1, points, int(n))
