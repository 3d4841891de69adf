"""Pictures of a spectrum: eigenvalues with their intervals, and the spectral density."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes

from sparsediag.plotting.style import COLOURS, new_axes


def plot_eigenvalues(
    values: np.ndarray,
    intervals: np.ndarray,
    *,
    matrix: str,
    converged: bool,
    ax: Axes | None = None,
) -> Axes:
    """Draw eigenvalues as stems with their intervals; hollow where they have not converged.

    Args:
        values: Eigenvalues, (top,).
        intervals: What each lies in, (top, 2).
        matrix: What they are eigenvalues of.
        converged: Whether they can be trusted.
        ax: Where to draw; a new figure if None.
    """
    ax = ax or new_axes()
    positions = np.arange(1, len(values) + 1)
    ax.vlines(positions, 0, values, color=COLOURS[4], linewidth=2)
    ax.errorbar(
        positions,
        values,
        yerr=np.abs(intervals - values[:, None]).T,
        fmt="o",
        color=COLOURS[0],
        markersize=4,
        capsize=3,
        markerfacecolor=COLOURS[0] if converged else "white",
        label="eigenvalue and its interval" if converged else "not converged",
    )
    ax.axhline(0, color="#777777", linewidth=0.6)
    ax.set(xlabel="eigenvector", ylabel=f"{matrix} eigenvalue")
    ax.set_xlim(0.4, len(positions) + 0.6)
    ax.set_xticks(positions[:: 1 + len(positions) // 15])
    if not converged:
        ax.legend()
    return ax


def plot_density(
    density: Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]],
    support: np.ndarray,
    values: np.ndarray,
    *,
    matrix: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw a spectral density on a logarithmic axis with its error, and eigenvalues on it.

    Args:
        density: Function of points and a width: the mean density and its standard error.
        support: Where there is density, (nodes,).
        values: Eigenvalues, (top,).
        matrix: What they are eigenvalues of.
        ax: Where to draw; a new figure if None.
    """
    ax = ax or new_axes()
    ends = np.concatenate([support, values])
    low, high = float(ends.min()), float(ends.max())
    width = max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-12) / 100
    points = np.linspace(low - 4 * width, high + 4 * width, 500)
    mean, error = density(points, width)
    floor = mean.max() * 1e-9
    ax.fill_between(
        points,
        np.maximum(mean - 2 * error, floor),
        np.maximum(mean + 2 * error, floor),
        color=COLOURS[4],
        alpha=0.5,
        linewidth=0,
        label="2 standard errors",
    )
    ax.semilogy(points, np.maximum(mean, floor), color=COLOURS[0], label="density")
    ax.plot(
        values, np.full(len(values), floor * 2), "v", color=COLOURS[1], ms=4, label="eigenvalues"
    )
    ax.set(xlabel=f"{matrix} eigenvalue", ylabel="density")
    ax.set_ylim(floor, mean.max() * 10)
    ax.legend(loc="upper right")
    return ax
