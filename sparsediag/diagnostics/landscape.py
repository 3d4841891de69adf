"""Landscape: the loss on a line or a plane through the weights (Li et al., NeurIPS 2018)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.fingerprint import fingerprint
from sparsediag.core.problem import Problem
from sparsediag.diagnostics.result import Result, source, title
from sparsediag.diagnostics.traits import InReport, Traits, diagnostic
from sparsediag.surfaces import checks
from sparsediag.surfaces.directions import Norm
from sparsediag.surfaces.evaluate import LossEvaluator, Precision, Statistics
from sparsediag.surfaces.export import write_csv, write_vtk
from sparsediag.surfaces.grid import (
    DONE,
    INTERPOLATED,
    MISSING,
    OVERFLOW,
    evaluate_grid,
    merge_shards,
)
from sparsediag.surfaces.interpolation import interpolate, pca_plane
from sparsediag.surfaces.plane import Axes, Plane, plane, plane_from_vectors

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class Landscape(Result):
    """The loss at the points of a grid.

    Attributes:
        loss: (points,), (lines, points), or (points, points) where `loss[i, j]` is at
            `axes[0, i]`, `axes[1, j]`. NaN or infinity where the loss overflows.
        accuracy: Share of correct samples; NaN without classes, or if interpolated.
        status: 0 for a point in another shard, 1 computed, 2 not finite, 3 interpolated.
        axes: Coordinates along each direction, (dims, points), in `unit`s.
        labels: Names of the directions.
        unit: With norm "filter", a step of 1 changes every filter by its norm.
        centre: The loss at the weights.
        gram: Cosines between the directions, (dims, dims).
        lengths: Lengths of the directions in weight space, (dims,).
        curvature: u.Hu for the unit vector u of each direction, (dims,); NaN unless it was asked
            for, and if the statistics of batch norm are estimated.
        held_out: Largest error of interpolation on held-out points, as a share of the range.
        rounding: Largest relative error of a lower precision at some points.
        stops: Names of the networks on the plane or near it.
        places: Their coordinates by least squares, (stops, dims).
        away: Their distances from the plane, (stops,).
        losses: Their losses, (stops,).
        heights: The loss on the plane at their coordinates, (stops,).
        doubts: Findings about the network, its data and the directions.
        converged: False if the directions are eigenvectors that did not converge.
    """

    loss: np.ndarray
    accuracy: np.ndarray
    status: np.ndarray
    axes: np.ndarray
    labels: list[str]
    unit: str
    centre: float
    gram: np.ndarray
    lengths: np.ndarray
    curvature: np.ndarray
    held_out: float = 0.0
    rounding: float = 0.0
    stops: list[str] = field(default_factory=list)
    places: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    away: np.ndarray = field(default_factory=lambda: np.zeros(0))
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0))
    heights: np.ndarray = field(default_factory=lambda: np.zeros(0))
    doubts: list[str] = field(default_factory=list)
    converged: bool = True

    @property
    def lines(self) -> bool:
        """Return whether it holds several lines instead of a plane."""
        return len(self.axes) == 1 and self.loss.ndim == 2

    @property
    def findings(self) -> list[str]:
        """Findings to read before believing the picture."""
        if missing := (self.status == MISSING).sum():
            return [*self.doubts, f"{missing} points are in other shards"]
        findings = checks.check_grid(self.loss, self.centre, axes=len(self.axes))
        if len(self.away) and self.away.max() > 0.5 * np.ptp(self.places * self.lengths, 0).max():
            findings.append(
                f"networks are up to {self.away.max():.3g} away from the plane; see their markers"
            )
        return [*self.doubts, *findings]

    def table(self) -> list[dict[str, Any]]:
        """Return the loss at the centre, at the stops and at the extremes of the grid."""
        rows = [_row("centre", self.centre, [0.0] * len(self.axes))]
        rows += map(_row, self.stops, self.losses, self.places)
        finite = np.where(np.isfinite(self.loss), self.loss, np.nan)
        if not self.status.all():
            return rows
        if np.isnan(finite).all():
            return [*rows, {"": "no other point", "loss": "overflow", "at": "all"}]
        low, high = np.nanargmin(finite), np.nanargmax(finite)
        mean = f"{np.nanmean(finite) - self.centre:.4g}"
        return [
            *rows,
            _row("lowest", finite.flat[low], self._coordinates(low)),
            _row("highest", finite.flat[high], self._coordinates(high)),
            {"": "mean rise", "loss": mean, "at": "all"},
        ]

    def _coordinates(self, flat: np.intp) -> list[float]:
        index = np.unravel_index(flat, self.loss.shape)[-len(self.axes) :]
        return [axis[i] for axis, i in zip(self.axes, index, strict=True)]

    @property
    def barrier(self) -> float:
        """Rise of the loss between two networks on a line above the higher end, else NaN."""
        if len(self.axes) != 1 or len(self.stops) != 2:
            return float("nan")
        (a, b), ends = np.sort(self.places[:, 0]), self.heights.max()
        between = (self.axes[0] >= a) & (self.axes[0] <= b)
        return float(self.loss[between].max(initial=ends) - ends)

    @property
    def title(self) -> str:
        """Return the title of its pictures, with the names of several networks."""
        between = self.stops and self.labels[0].startswith("towards")
        return title(self.source | ({"label": ", ".join(self.stops)} if between else {}))

    def remarks(self) -> list[str]:
        """Return how it was computed, and the findings."""
        computed = int(np.isin(self.status, (DONE, OVERFLOW)).sum())
        lines = [f"{computed} of {self.loss.size} points computed"]
        if (self.status == INTERPOLATED).any():
            lines[0] += f", the others interpolated, off by {self.held_out:.1%} at most"
        if self.rounding:
            lines.append(f"lower precision: largest relative error {self.rounding:.1e}")
        if not np.isnan(self.barrier):
            lines.append(f"barrier between the networks: {self.barrier:.4g}")
        return [*lines, *(f"finding: {line}" for line in self.findings)]

    def plot(self, ax: Panel | None = None) -> Panel:
        """A curve (1-D), curves with their band (lines), or filled contours (2-D)."""
        from sparsediag.plotting.landscape import plot_landscape

        return plot_landscape(self, ax)

    @property
    def complete(self) -> bool:
        """Return whether all points are there, not only those of a shard."""
        return bool(self.status.all())

    def exports(self) -> dict[str, Callable[[Path], Path]]:
        """Return what writes the points as CSV, and those of a plane as VTK."""
        exports: dict[str, Callable[[Path], Path]] = {"csv": partial(write_csv, self)}
        if self.loss.ndim == 2 and not self.lines:
            exports["vtk"] = partial(write_vtk, self)
        return exports

    def surface(self) -> Figure:
        """Return an interactive surface with an animation of the stops; curves in 1-D."""
        from sparsediag.plotting.interactive import landscape_figure

        return landscape_figure(self)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return the landscape of these shards.

        Raises:
            ValueError: If they are of different landscapes, or a point is missing.
        """
        first = parts[0]
        if any(p.source != first.source or not np.isclose(p.centre, first.centre) for p in parts):
            raise ValueError("the shards are of different landscapes; join those of one command")
        loss, accuracy, status = merge_shards([(p.loss, p.accuracy, p.status) for p in parts])
        return replace(first, loss=loss, accuracy=accuracy, status=status)


def _row(name: str, loss: float, coordinates: Iterable[float]) -> dict[str, Any]:
    at = ", ".join(f"{round(float(x), 9) + 0.0:.3g}" for x in coordinates)
    return {"": name, "loss": f"{loss:.4g}", "at": at}


def _loss_of(problem: Problem, statistics: Statistics) -> float:
    """Return the loss of a network by itself, with these statistics of batch norm."""
    line = plane_from_vectors(problem, problem.weights[None], ["weights"])
    return LossEvaluator(line, statistics=statistics).centre_loss


def plane_through(problems: dict[str, Problem], options: dict[str, Any], run: bool) -> Plane:
    """Return the plane through several networks, or the principal one through those of a run.

    Raises:
        ValueError: If an option was given that belongs to a plane through one network.
    """
    for option in ("axes", "norm", "include_1d", "lines", "seed", *(() if run else ("dims",))):
        if option in options:
            flag, networks = option.replace("_", "-"), "a run" if run else "several networks"
            raise ValueError(f"--{flag} does not apply to a plane through {networks}; leave it out")
    nets, names = list(problems.values()), list(problems)
    if not run:
        return interpolate(nets, names=names)
    return pca_plane(nets, names, dims=max(1, min(options.pop("dims", 2), len(nets) - 1)))


def recorded_loss(
    checkpoint: Checkpoint, *, split: str | None, images: int | None, **asked: Any
) -> float:
    """Return the loss that the training recorded for a whole split; NaN for other samples."""
    row = checkpoint.history[-1] if checkpoint.history else {}
    key = {"validation": "val_loss", "test": "test_loss"}.get(split or "train", "")
    other = images != 0 or any(asked.get(option) for option in ("data", "loss", "mask"))
    return float("nan") if other else float(row.get(key, "nan"))


def export_formats(nets: int, *, dims: int = 2, lines: int = 1, **_: Any) -> tuple[str, ...]:
    """Return the formats that a landscape with these options can be exported to."""
    return ("csv", "vtk") if dims == 2 and lines == 1 and nets != 2 else ("csv",)


@diagnostic(
    Traits(
        several=plane_through,
        compare="comparison.compare_files",
        formats=export_formats,
        from_checkpoint={"expected": recorded_loss},
        report=InReport(cost=lambda points, top: points**2, options={"curvature": True}),
    )
)
def landscape(
    problem: Problem | Plane,
    *,
    points: int = 25,
    span: float = 1.0,
    dims: int = 2,
    axes: Axes = "random",
    norm: Norm = "filter",
    include_1d: bool | None = None,
    orthogonal: bool = False,
    lines: int = 1,
    seed: int = 0,
    statistics: Statistics | None = None,
    precision: Precision = "float32",
    adaptive: bool = False,
    tol: float = 0.01,
    curvature: bool = False,
    shard: str | None = None,
    jobs: int = 1,
    expected: float | None = None,
    resume: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Landscape:
    """Compute the loss at `weights + a d1 (+ b d2)` for a, b in [-span, span].

    The directions change the live weights only. By default they are Gaussian and normalised filter
    by filter (Li et al., NeurIPS 2018, section 4): a step of 1 is as long as the weights.

    Args:
        problem: The loss, or a `Plane`, for which the options from `dims` to `lines` are ignored.
        points: Grid points along each direction; an odd number has the weights at its centre.
        span: Distance each way, in units of the directions.
        dims: 1 for a line, 2 for a plane.
        axes: "random", "gradient" (and a random one), or "eigenvectors" of the Hessian.
        norm: Scale of the directions: filter, layer, weight or none.
        include_1d: Whether biases and batch norm change too (default: with norm "none" only).
        orthogonal: Make the second direction orthogonal to the first, after normalisation.
        lines: Random lines, each with the next seed, instead of one (dims=1).
        seed: Seed of the first direction; the second has the next one.
        statistics: Of batch norm: the running ones ("fixed", default for one network), or
            estimated at each point ("estimate", default between networks).
        precision: "bfloat16" is faster on some machines; its error is measured.
        adaptive: Compute as many points as a smooth surface needs, and interpolate the others.
        tol: Accepted error of the interpolation, as a share of the range of the loss.
        curvature: Also compute u.Hu along each direction, for `compare`; one product each.
        shard: "2/4" for the second quarter of the points; `Landscape.join` (the command `join`)
            puts the parts together.
        jobs: Processes that share the points.
        expected: The loss that the training recorded for these samples; a difference is a finding.
        resume: File that records the points, so that a killed computation can be resumed; remove
            it after the result is saved.
        progress: Called as `progress(points, all)`.

    Raises:
        ValueError: If an option is invalid, or `resume` holds another landscape.

    >>> import torch
    >>> from torch import nn
    >>> problem = Problem(nn.Linear(2, 1), [(torch.eye(2), torch.ones(2, 1))], loss=nn.MSELoss())
    >>> landscape(problem, points=3).loss.shape
    (3, 3)
    """
    options = {
        "points": points,
        "span": span,
        "dims": dims,
        "axes": axes,
        "norm": norm,
        "include_1d": include_1d,
        "orthogonal": orthogonal,
        "lines": lines,
        "seed": seed,
        "statistics": statistics,
        "precision": precision,
        "adaptive": adaptive,
        "tol": tol,
        "curvature": curvature,
    }
    if isinstance(problem, Problem):
        on = plane(problem, axes, dims=dims, norm=norm, vectors=include_1d, lines=lines, seed=seed)
    else:
        on = problem
    on = on.orthogonal() if orthogonal else on
    statistics = statistics or ("estimate" if on.stops else "fixed")
    coordinates, grid = on.grid(points, span)
    evaluator = LossEvaluator(on, statistics=statistics, precision=precision)
    estimated = statistics == "estimate" and on.problem.about["batch_statistics"] != ""
    stops = on.project_stops()
    if estimated:  # as on the plane, so that a network has one loss
        stops["losses"] = np.array([_loss_of(stop, statistics) for stop in on.stops])
    values = evaluate_grid(
        evaluator,
        grid,
        adaptive=adaptive,
        tol=tol,
        shard=shard,
        jobs=jobs,
        resume=resume,
        progress=progress,
    )
    heights = [evaluator(place, precision="float32")[0] for place in stops["places"]]
    doubts, bends = checks.check_plane(evaluator, expected=expected), np.full(len(on.gram), np.nan)
    if curvature and statistics == "fixed":
        try:
            bends = on.curvature()
        except ValueError as error:  # the surface itself needs no second derivative
            doubts.append(f"no curvature along the axes: {error}")
    directions = fingerprint(str(coordinates.tolist()), [on.directions])
    return Landscape(
        **vars(values),
        **stops,
        axes=coordinates,
        labels=on.labels,
        unit=on.unit,
        gram=on.gram,
        lengths=on.directions.norm(dim=1).double().cpu().numpy(),
        centre=evaluator.centre_loss,
        curvature=bends,
        heights=np.array(heights),
        doubts=doubts,
        converged=on.converged,
        source=source(on.problem, **options, directions=directions, labels=on.labels)
        | ({"batch_statistics": statistics} if estimated else {}),
    )
