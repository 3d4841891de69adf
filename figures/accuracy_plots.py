"""Plots of the test accuracy over sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from figures import accuracy
from figures.estimate import Estimate
from figures.measurement import Results

TICK_WIDTH = 0.2  # inches that a tick label needs


class LineStyle(NamedTuple):
    """Colour, marker and line style of a curve."""

    colour: Any
    marker: str = "o"
    line: str = "-"


def plot(
    ax: Axes, results: Results, curves: Mapping[Any, tuple[str, LineStyle]], *, inches: float = 3.0
) -> None:
    """Plot the accuracy of several kinds over sparsity, with intervals where there are seeds.

    Args:
        ax: Axes to draw on.
        results: By (kind, density, seed).
        curves: Kind -> (label in the legend, line style).
        inches: Width of the axes; narrow ones get fewer tick labels.
    """
    densities = sorted({d for kind, d, _ in results if kind in curves and d < 1})
    for i, (kind, (label, line_style)) in enumerate(curves.items()):
        shift = 1.012 ** (i - (len(curves) - 1) / 2)  # so that error bars do not overlap
        points = {d * shift: e for d in densities if (e := accuracy.estimate(results, kind, d))}
        if points:
            plot_curve(ax, points, label, line_style)
    sparsity_axis(ax, densities, inches=inches)
    ax.set_ylabel("test accuracy (%)")


def plot_curve(
    ax: Axes,
    points: Mapping[float, Estimate],
    label: str,
    line_style: LineStyle,
    *,
    size: float = 2.8,
) -> None:
    """Plot estimates over density with error bars; markers of a dotted curve are hollow."""
    mean = np.array([e.mean for e in points.values()])
    half = np.array([e.half if e.half < np.inf else np.nan for e in points.values()])
    bars = ax.errorbar(
        list(points), mean, half, label=label, color=line_style.colour,
        marker=line_style.marker, linestyle=line_style.line, markersize=size, linewidth=1,
        elinewidth=0.6, capsize=1.5,
    )  # fmt: skip
    if line_style.line == ":":
        bars.lines[0].set(markerfacecolor="white", markeredgewidth=0.7)


def plot_dense(ax: Axes, results: Results, kind: Any, colour: Any) -> None:
    """Draw the accuracy of the dense network as a dashed line."""
    if level := accuracy.estimate(results, kind, 1):
        ax.axhline(level.mean, color=colour, linewidth=0.8, linestyle="--")


def sparsity_axis(ax: Axes, densities: Sequence[float], *, inches: float = 3.0) -> None:
    """Make the x axis logarithmic, from dense to sparse, with as many labels as fit."""
    ax.set_xscale("log")
    ax.set_xlabel("sparsity (%)")
    ticks: list[float] = []
    if densities:
        low, high = min(densities) / 1.15, max(densities) * 1.15
        ax.set_xlim(high, low)
        min_ratio = (high / low) ** (TICK_WIDTH / inches)
        for density in sorted(densities):
            if not ticks or density > ticks[-1] * min_ratio:
                ticks.append(density)
    ax.set_xticks(ticks[::-1], [accuracy.sparsity(density) for density in ticks[::-1]])
    ax.minorticks_off()
