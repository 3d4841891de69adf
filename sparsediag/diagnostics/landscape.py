"""Landscape: the loss on a line or a plane through the weights (Li et al., NeurIPS 2018)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsediag import directions
from sparsediag.directions import Norm
from sparsediag.problem import Problem
from sparsediag.result import Result, source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from plotly.graph_objects import Figure

SAVE_EVERY = 5.0  # seconds between two writes of an unfinished landscape


@dataclass(frozen=True, kw_only=True, eq=False)
class Landscape(Result):
    """The loss at the points of a grid.

    Attributes:
        loss: (points,) or (points, points); `loss[i, j]` is at `axes[0, i]`, `axes[1, j]`.
            NaN or infinity where the loss overflows.
        axes: Distance along each direction, (dims, points), in lengths of the direction: with
            norm "filter", 1 moves every filter by its own norm.
        centre: The loss at the weights themselves.
        gram: Cosines between the directions, (dims, dims).
        done: Which points have been computed; all of them once the landscape is finished.
    """

    loss: np.ndarray
    axes: np.ndarray
    centre: float
    gram: np.ndarray
    done: np.ndarray

    def table(self) -> list[dict[str, Any]]:
        """Loss at the centre and the extremes of the grid."""
        origin = ", ".join("0" for _ in self.axes)
        centre = {"": "centre", "loss": f"{self.centre:.4g}", "at": origin}
        finite = np.where(np.isfinite(self.loss), self.loss, np.nan)
        if np.isnan(finite).all():
            return [centre, {"": "no other point", "loss": "overflow", "at": "all"}]
        low, high = np.nanargmin(finite), np.nanargmax(finite)
        return [
            centre,
            {"": "lowest", "loss": f"{finite.flat[low]:.4g}", "at": self._place(low)},
            {"": "highest", "loss": f"{finite.flat[high]:.4g}", "at": self._place(high)},
            {"": "mean rise", "loss": f"{np.nanmean(finite) - self.centre:.4g}", "at": "all"},
        ]

    def _place(self, flat: np.intp) -> str:
        where = np.unravel_index(flat, self.loss.shape)
        return ", ".join(f"{axis[i]:.3g}" for axis, i in zip(self.axes, where, strict=True))

    def plot(self, ax: Axes | None = None) -> Axes:
        """A curve (1-D), or filled contours of the loss with the weights as a cross (2-D)."""
        from sparsediag import plotting

        ax = ax or plotting.axes()
        norm = self.source.get("options", {}).get("norm", "none")
        unit = "" if norm == "none" else f" ({norm} norms)"
        if self.loss.ndim == 1:
            ax.plot(self.axes[0], self.loss, color=plotting.COLOURS[0])
            ax.plot(0, self.centre, "+", color="black")
            ax.set(xlabel=f"direction 1{unit}", ylabel="loss")
            return ax
        plotting.contours(ax, self.axes[0], self.axes[1], self.loss)
        ax.plot(0, 0, "+", color="white", ms=8)
        ax.set(xlabel=f"direction 1{unit}", ylabel=f"direction 2{unit}")
        return ax

    def surface(self) -> Figure:
        """The loss as a surface to turn around, or a curve in 1-D (plotly)."""
        from sparsediag import plotting

        return plotting.surface(self.axes, self.loss)


def landscape(
    problem: Problem,
    *,
    points: int = 25,
    span: float = 1.0,
    dims: int = 2,
    norm: Norm = "filter",
    seed: int = 0,
    resume: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Landscape:
    """The loss at `weights + a d1 (+ b d2)` for a, b in [-span, span].

    The directions are Gaussian, lie on the live weights alone, and are normalised filter by
    filter, so that one unit is as long as the weights are.

    Args:
        problem: The loss.
        points: Grid points along each direction; an odd number has the weights as its centre.
        span: How far to go each way, in units of the directions.
        dims: 1 for a line, 2 for a plane.
        norm: How the directions are scaled: filter, layer or none.
        seed: Seed of the first direction; the second has the next one.
        resume: File that keeps the points while they are computed. If it holds the same
            landscape unfinished, the work goes on from there. Remove it once the result is saved.
        progress: Called as `progress(points, all)`.

    Raises:
        ValueError: If the grid cannot be, or `resume` holds another landscape.

    >>> import torch
    >>> from torch import nn
    >>> problem = Problem(nn.Linear(2, 1), [(torch.eye(2), torch.ones(2, 1))], loss=nn.MSELoss())
    >>> landscape(problem, points=3).loss.shape
    (3, 3)
    """
    if dims not in (1, 2):
        raise ValueError(f"dims={dims}: need 1 (a line) or 2 (a plane)")
    axis = directions.steps(points, span)
    d = [directions.random(problem, norm=norm, seed=seed + i) for i in range(dims)]
    lengths = np.array([float(v.norm()) for v in d])
    if not lengths.all():
        raise ValueError(
            "a direction is zero everywhere: no layer with two dimensions has live weights. "
            "Use norm='none' to move biases and norms too."
        )
    about = source(problem, points=points, span=span, dims=dims, norm=norm, seed=seed)
    grid = Landscape(
        loss=np.full((points,) * dims, np.nan),
        axes=np.stack([axis] * dims),
        centre=problem.value(),
        gram=np.array([[float(u @ v) for v in d] for u in d]) / np.outer(lengths, lengths),
        done=np.zeros((points,) * dims, dtype=bool),
        source=about,
    )
    if resume is not None and Path(resume).exists():
        grid = _same(Landscape.load(resume), grid, resume)
    todo = [p for p in product(range(points), repeat=dims) if not grid.done[p]]
    saved = time.monotonic()
    for place in todo:
        at = problem.weights
        for coordinate, direction in zip(place, d, strict=True):
            at = at.add(direction, alpha=float(axis[coordinate]))
        grid.loss[place] = problem.value(at)
        grid.done[place] = True
        if progress:
            progress(int(grid.done.sum()), grid.done.size)
        if resume is not None and time.monotonic() - saved > SAVE_EVERY:
            grid.save(resume)
            saved = time.monotonic()
    if resume is not None:
        grid.save(resume)
    return grid


def _same(kept: Landscape, wanted: Landscape, path: Path) -> Landscape:
    same = {key: kept.source[key] == wanted.source[key] for key in ("problem", "options")}
    same["problem"] &= bool(np.isclose(kept.centre, wanted.centre))
    for key in [key for key, equal in same.items() if not equal]:
        raise ValueError(
            f"{path} holds an unfinished landscape of another {key}; "
            "remove it, or ask for the same one again"
        )
    return replace(kept, source=wanted.source)
