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
    rows = _arrange(groups, surroundings)
    side = min(1.8, (style.PAGE - 1.1) / max(map(len, rows)))  # inches of a plane
    heights = [2.3 + 0.1 * len(groups), 0.5 + (side + 0.45) * len(rows)]
    fig = style.new_figure(style.PAGE, 0.2 + sum(heights))
    fig.suptitle(fill(title, round(LETTERS * style.PAGE)), fontsize=8)
    above, below = _split(fig, 2, 1, height_ratios=heights)
    left, right = _split(above, 1, 2)
    plot_groups(groups, ax=left.add_subplot())
    ax = right.add_subplot()
    _plot_rises(ax, groups, surroundings, radii)
    ax.set(xlabel=f"distance from the net ({unit})", ylabel="mean rise of the loss")
    right.legend(loc="outside lower center", ncols=1 if len(groups) < 4 else 2)
    _plot_planes(below, rows, axes, title_width=round(LETTERS * (side + 0.2)))
    below.supxlabel(f"two random directions ({unit})", fontsize=8)
    return fig


def _split(fig: Figure | SubFigure, rows: int, columns: int, **options: Any) -> list[SubFigure]:
    return list(np.ravel(np.array(fig.subfigures(rows, columns, **options))))


def _arrange(
    groups: Sequence[Group], surroundings: Sequence[Surroundings]
) -> list[list[tuple[str, str, np.ndarray]]]:
    """Return name, seed and plane of each net in rows: all in one, or a column for each group."""
    columns = [
        [
            (group_name(group), f"seed {seed}: {accuracy:.1f} %", loss)
            for seed, accuracy, loss in zip(
                around.seeds, group.accuracies, around.losses, strict=True
            )
        ]
        for group, around in zip(groups, surroundings, strict=True)
    ]
    if sum(map(len, columns)) <= ROW:
        return [[plane for column in columns for plane in column]]
    most = max(map(len, columns))
    if len(columns) < most <= ROW:
        return columns  # a row for each group
    empty = ("", "", np.zeros((0, 0)))
    return [[column[i] if i < len(column) else empty for column in columns] for i in range(most)]


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
    ax.set_title("mean and range of the seeds", fontsize=7)


def _plot_planes(
    fig: SubFigure,
    rows: Sequence[Sequence[tuple[str, str, np.ndarray]]],
    axes: np.ndarray,
    *,
    title_width: int,
) -> None:
    """Plot planes with their titles, all with the same levels."""
    levels = style.loss_levels(*(loss for row in rows for _, _, loss in row))
    shape = len(rows), max(map(len, rows))
    grid = fig.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    for ax in grid.flat:
        ax.set_visible(False)
    for places, row in zip(grid, rows, strict=True):
        for ax, (name, seed, loss) in zip(places, row, strict=False):
            if not loss.size:
                continue
            ax.set_visible(True)
            filled = style.plot_contours(ax, axes[0], axes[1], loss, levels=levels, colorbar=False)
            ax.plot(0, 0, "+", color="white", ms=6)
            ax.set_title(f"{fill(name, title_width)}\n{seed}", fontsize=7)
            ax.xaxis.set_major_locator(MaxNLocator(2))
            ax.yaxis.set_major_locator(MaxNLocator(2))
    style.add_loss_scale(filled, grid, levels, shrink=0.9, aspect=30)
