"""Plots of the test accuracy over sparsity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from figures import accuracy
from figures.measurement import Results
from sparsediag.plotting.accuracy import LineStyle, plot_curves


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
    estimates = {
        kind: {d: e for d in densities if (e := accuracy.estimate(results, kind, d))}
        for kind in curves
    }
    plot_curves(ax, [(estimates[kind], *curve) for kind, curve in curves.items()], inches=inches)


def plot_dense(ax: Axes, results: Results, kind: Any, colour: Any) -> None:
    """Draw the accuracy of the dense network as a dashed line."""
    if level := accuracy.estimate(results, kind, 1):
        ax.axhline(level.mean, color=colour, linewidth=0.8, linestyle="--")
