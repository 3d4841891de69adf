"""Draw accuracies over sparsity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from sparsediag.core.estimate import Estimate
from sparsediag.plotting import style

TICK_WIDTH = 0.2  # inches that a tick label needs
SHIFT = 0.01  # of the axis, between two curves, so that their error bars do not overlap


MARKERS = "osD^vPX"
LETTERS = 16  # of a title, in an inch


class Group(NamedTuple):
    """Test accuracies in percent of trainings that differ only in the seed."""

    label: str  # groups with one label are a curve
    density: float
    accuracies: Sequence[float]

    @property
    def estimate(self) -> Estimate:
        """Return their mean and its interval."""
        return Estimate.of(self.accuracies)


class LineStyle(NamedTuple):
    """Colour, marker and line style of a curve."""

    colour: Any
    marker: str = "o"
    line: str = "-"


def group_name(group: Group) -> str:
    """Return the label of a group with its sparsity, for a picture."""
    at = f", {sparsity(group.density)} % sparse" if group.density < 1 else ""
    return style.escape_dollars(group.label) + at


def label_styles(labels: Iterable[str]) -> dict[str, LineStyle]:
    """Return a colour, a marker and a line for each label."""
    styles = {}
    for i, label in enumerate(dict.fromkeys(labels)):
        colour = style.COLOUR_OF.get(label, style.COLOURS[i % len(style.COLOURS)])
        line = "-" if i < len(style.COLOURS) else "--"
        styles[label] = LineStyle(colour, MARKERS[i % len(MARKERS)], line)
    return styles


@style.style()
def plot_groups(groups: Sequence[Group], title: str = "", ax: Axes | None = None) -> Axes:
    """Plot accuracies over sparsity with intervals; with a single density, a row for each group.

    Args:
        groups: The groups. Dense ones are horizontal lines among curves.
        title: Title of the picture, if any.
        ax: Axes to draw on; on a new figure if None.
    """
    over_sparsity = len({group.density for group in groups} - {1}) > 1
    rows = len({group.label for group in groups}) / 2 + 8 if over_sparsity else len(groups)
    ax = ax or style.new_figure(height=1 + 0.2 * rows).add_subplot()
    if title:
        ax.figure.suptitle(fill(title, round(LETTERS * style.COLUMN)), fontsize=8)
    if over_sparsity:
        _plot_over_sparsity(groups, ax)
        ax.figure.legend(loc="outside lower center", ncols=2)
    else:
        _plot_rows(groups, ax)
    return ax


def _plot_over_sparsity(groups: Sequence[Group], ax: Axes) -> None:
    styles = label_styles(group.label for group in groups)
    for group in groups:
        if group.density == 1:
            colour, label = styles[group.label].colour, style.escape_dollars(group.label)
            ax.axhline(group.estimate.mean, color=colour, ls="--", lw=0.8, label=label)
    curves = [
        (
            {g.density: g.estimate for g in groups if g.label == label and g.density < 1},
            style.escape_dollars(label),
            line_style,
        )
        for label, line_style in styles.items()
        if any(g.label == label and g.density < 1 for g in groups)
    ]
    plot_curves(ax, curves)
    ax.set_ylim(*_limits(groups))


def _plot_rows(groups: Sequence[Group], ax: Axes) -> None:
    """Plot a row for each group: its seeds as rings, and their mean with its interval."""
    styles, names = label_styles(group.label for group in groups), []
    for row, group in enumerate(groups):
        colour, estimate = styles[group.label].colour, group.estimate
        half = estimate.half if estimate.count > 1 else np.nan
        ax.errorbar(estimate.mean, row, xerr=half, color=colour, marker="|", ms=9, capsize=2)
        seeds = group.accuracies
        ax.plot(seeds, [row] * len(seeds), "o", mfc="white", mec=colour, ms=4, zorder=3)
        names.append(group_name(group))
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(len(names) - 0.4, -0.6), xlim=_limits(groups))
    ax.set_xlabel("test accuracy (%), a ring for each seed")


def _limits(groups: Sequence[Group]) -> tuple[float, float]:
    """Return limits of an axis with all seeds; a very wide interval may leave it."""
    seeds = [accuracy for group in groups for accuracy in group.accuracies]
    spread = max(seeds) - min(seeds) + 0.4
    halves = [group.estimate.half for group in groups if len(group.accuracies) > 1]
    room = min(max(halves, default=0), spread) + 0.1 * spread
    return max(min(seeds) - room, -1), min(max(seeds) + room, 101)


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
    densities = sorted({density for points, *_ in curves for density in points})
    factor = max(1.012, (densities[-1] / densities[0]) ** SHIFT) if densities else 1
    for i, (points, label, line_style) in enumerate(curves):
        shift = factor ** (i - (len(curves) - 1) / 2)
        if points:
            plot_curve(ax, {d * shift: e for d, e in points.items()}, label, line_style)
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
