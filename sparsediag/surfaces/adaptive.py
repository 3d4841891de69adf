"""Interpolate a smooth surface from a part of its points, and measure the error.

A coarse grid is computed first, then the points where two interpolants differ most. Held-out points
that neither of them uses decide when the surface is accurate enough. Where all values are positive,
their logarithm is interpolated, since pictures show it: an error that is small beside the walls of
a basin may be many times the loss at its bottom.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsediag.core.rng import stream

COARSE = 7  # points along each axis to begin with
HELD_OUT = 48  # points
MARGIN = 0.6  # the largest error at the held-out points is less than the largest of all
MAX_POINTS = 3000  # to interpolate between: the work grows with their cube
TINY = float(np.finfo(float).tiny)
Fetch = Callable[[np.ndarray], np.ndarray]  # numbers of points -> their values


def adaptive_values(
    shape: tuple[int, int], fetch: Fetch, *, tol: float, seed: int = 0
) -> tuple[np.ndarray, float]:
    """Return values at all points of a grid, and the largest error on the held-out points.

    Args:
        shape: Of the grid.
        fetch: Computes points.
        tol: Accepted error, as a share of the range of the values; the search stops when the error
            on the held-out points is 0.6 of it, since others may be larger.
        seed: Seed of the held-out points.

    Returns:
        Values, (shape), and the error as a share of the range, of the values or of their
        logarithms, whichever is larger. If more than half of the points would be needed, or one is
        not finite, all are computed and the error is 0.
    """
    points = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"), axis=-1)
    points = points.reshape(-1, 2)
    lines = [np.unique(np.linspace(0, n - 1, COARSE).round().astype(int)) for n in shape]
    coarse = np.ravel_multi_index(np.ix_(*lines), shape).ravel()
    others = np.setdiff1d(np.arange(len(points)), coarse)
    generator = np.random.default_rng(stream("held back", seed).initial_seed())
    held_out = np.sort(generator.choice(others, min(HELD_OUT, len(others)), replace=False))
    values = np.full(len(points), np.nan)
    values[held_out], values[coarse] = fetch(held_out), fetch(coarse)
    used = coarse
    limit = min(len(points) / 2, MAX_POINTS)
    while len(used) + len(held_out) < limit and np.isfinite(values[[*used, *held_out]]).all():
        computed = np.concatenate([used, held_out])
        scale = np.log if (values[computed] > 0).all() else np.positive
        cubic, spline = (
            _interpolate(points, values, used, kernel, scale)
            for kernel in ("cubic", "thin_plate_spline")
        )
        error = max(
            _max_error(cubic[held_out], values[held_out], values[computed], f)
            for f in (np.positive, scale)
        )
        if error <= MARGIN * tol:
            surface = _interpolate(points, values, computed, "cubic", scale)
            surface[computed] = values[computed]
            return surface.reshape(shape), error
        difference = np.abs(scale(cubic) - scale(spline))
        difference[computed] = -1
        count = max(8, len(used) // 4)
        new = _select_separate(difference, points, count=count, shape=shape)
        values[new] = fetch(new)
        used = np.concatenate([used, new])
    rest = np.setdiff1d(np.arange(len(points)), [*used, *held_out])
    values[rest] = fetch(rest)
    return values.reshape(shape), 0.0


def _interpolate(
    points: np.ndarray, values: np.ndarray, used: np.ndarray, kernel: str, scale: np.ufunc
) -> np.ndarray:
    """Return values at all points from those that are used."""
    from scipy.interpolate import RBFInterpolator

    result = RBFInterpolator(points[used], scale(values[used]), kernel=kernel)(points)
    surface: np.ndarray = np.exp(result) if scale is np.log else result
    return surface


def _max_error(
    estimated: np.ndarray, exact: np.ndarray, computed: np.ndarray, scale: np.ufunc
) -> float:
    """Return the largest error as a share of the range of the computed values."""
    error = np.abs(scale(estimated) - scale(exact)).max()
    return float(error / max(np.ptp(scale(computed)), TINY))


def _select_separate(
    difference: np.ndarray, points: np.ndarray, *, count: int, shape: tuple[int, int]
) -> np.ndarray:
    """Return the numbers of the points with the largest differences, none next to another."""
    cell = 2 / (np.array(shape) - 1)
    selected: list[int] = []
    difference = difference.copy()
    for _ in range(count):
        i = int(difference.argmax())
        if difference[i] < 0:
            break
        selected.append(i)
        difference[(np.abs(points - points[i]) < 1.5 * cell).all(axis=1)] = -1
    return np.array(selected)
