"""Draw accuracies and landscapes of several trainings in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from sparsediag.plotting import style
from sparsediag.plotting.accuracy import LETTERS, Group, group_name, label_styles, plot_groups

DASHES = ("-", "--", ":", "-.")  # for the densities of a method
ROW = 5  # planes that are legible side by side


@dataclass(frozen=True)
class Surroundings:
    """The loss around the nets of one group.

    Attributes:
        seeds: Seeds of the nets.
        losses: On planes with common axes, (nets, points, points).
        rises: Mean rise of the loss at each distance, (nets, radii).
    """

    seeds: Sequence[int]
    losses: np.ndarray
    rises: np.ndarray


@style.style()
def plot_joined(
    groups: Sequence[Group],
    surroundings: Sequence[Surroundings],
    *,
    axes: np.ndarray,
    radii: np.ndarray,
    unit: str,
    title: str,
) -> Figure:
    """Plot accuracies, the rise of the loss around the nets, and the plane of each net.

    Args:
        groups: Accuracies of trainings that differ only in the seed.
        surroundings: The loss around the nets of each group.
        axes: Coordinates on the planes, (2, points).
        radii: Distances of the rises.
        unit: Unit of the axes and distances.
        title: Title of the figure.
    """
    planes = [
        (f"{fill(group_name(group), 24)}\nseed {seed}: {accuracy:.1f} %", loss)
        for group, around in zip(groups, surroundings, strict=True)
        for seed, accuracy, loss in zip(around.seeds, group.accuracies, around.losses, strict=True)
    ]
    columns = len(planes) if len(planes) <= ROW else max(len(s.seeds) for s in surroundings)
    columns = min(columns, ROW)
    rows = -(-len(planes) // columns)
    side = (style.PAGE - 1) / columns  # inches of a plane with its share of the margins
    heights = [1.7 + 0.15 * len(groups), 0.5 + (min(side, 2.2) + 0.3) * rows]
    fig = style.new_figure(style.PAGE, 0.2 + sum(heights))
    fig.suptitle(fill(title, round(LETTERS * style.PAGE)), fontsize=8)
    halves: Any = fig.subfigures(2, 1, height_ratios=heights)
    left, right = halves[0].subplots(1, 2)
    plot_groups(groups, ax=left)
    _plot_rises(right, groups, surroundings, radii)
    right.set(xlabel=f"distance from the net ({unit})", ylabel="mean rise of the loss")
    _plot_planes(halves[1], planes, (rows, columns), axes)
    halves[1].supxlabel(f"two random directions ({unit})", fontsize=8)
    return fig


def _plot_rises(
    ax: Axes, groups: Sequence[Group], surroundings: Sequence[Surroundings], radii: np.ndarray
) -> None:
    """Plot the mean over the seeds of each group, and the range over them as a band."""
    styles = label_styles(group.label for group in groups)
    densities = sorted({group.density for group in groups if group.density < 1}, reverse=True)
    for group, around in zip(groups, surroundings, strict=True):
        colour = styles[group.label].colour
        dash = DASHES[densities.index(group.density) % len(DASHES)] if group.density < 1 else "-"
        ax.plot(radii, around.rises.mean(axis=0), dash, color=colour, label=group_name(group))
        low, high = around.rises.min(axis=0), around.rises.max(axis=0)
        ax.fill_between(radii, low, high, color=colour, alpha=0.2, lw=0)
    rises = np.concatenate([around.rises for around in surroundings])
    if (rises > 0).all() and rises.max() > 30 * rises.min():
        ax.set_yscale("log")
    ax.legend(title="mean and range of the seeds", title_fontsize=7)


def _plot_planes(
    fig: SubFigure,
    planes: Sequence[tuple[str, np.ndarray]],
    shape: tuple[int, int],
    axes: np.ndarray,
) -> None:
    """Plot planes with their titles, all with the same levels."""
    levels = style.loss_levels(*(loss for _, loss in planes))
    grid = fig.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    for ax in grid.flat[len(planes) :]:
        ax.set_visible(False)
    for ax, (title, loss) in zip(grid.flat, planes, strict=False):
        filled = style.plot_contours(ax, axes[0], axes[1], loss, levels=levels, colorbar=False)
        ax.plot(0, 0, "+", color="white", ms=6)
        ax.set_title(title, fontsize=7)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_locator(MaxNLocator(4))
    style.add_loss_scale(filled, grid, levels, shrink=0.9, aspect=30)
