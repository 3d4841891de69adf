"""Draw accuracies over sparsity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from sparsediag.core.estimate import Estimate

TICK_WIDTH = 0.2  # inches that a tick label needs
SHIFT = 1.012  # between the points of two curves at one density, so that error bars do not overlap


class LineStyle(NamedTuple):
    """Colour, marker and line style of a curve."""

    colour: Any
    marker: str = "o"
    line: str = "-"


def sparsity(density: float) -> str:
    """Return the sparsity in percent as the papers write it: rounded down from 94 on.

    >>> sparsity(0.1), sparsity(0.8**6), sparsity(0.8**14), sparsity(0.8**16), sparsity(0.0032)
    ('90', '74', '95', '97', '99.6')
    """
    percent = 100 * (1 - density)
    if density <= 0.01:
        return f"{math.floor(10 * percent + 1e-6) / 10:.1f}"
    return f"{math.floor(percent + 1e-6) if density < 0.06 else round(percent)}"


def plot_curves(
    ax: Axes,
    curves: Sequence[tuple[Mapping[float, Estimate], str, LineStyle]],
    *,
    inches: float = 3.0,
) -> None:
    """Plot accuracies over sparsity, with their intervals.

    Args:
        ax: Axes to draw on.
        curves: Density -> accuracy in percent, label in the legend, and line style of each.
        inches: Width of the axes; narrow ones get fewer tick labels.
    """
    for i, (points, label, line_style) in enumerate(curves):
        shift = SHIFT ** (i - (len(curves) - 1) / 2)
        if points:
            plot_curve(ax, {d * shift: e for d, e in points.items()}, label, line_style)
    sparsity_axis(ax, sorted({d for points, *_ in curves for d in points}), inches=inches)
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
    ax.set_xticks(ticks[::-1], [sparsity(density) for density in ticks[::-1]])
    ax.minorticks_off()
