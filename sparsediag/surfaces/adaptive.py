"""Adaptive: a smooth surface from a part of its points, and how wrong the rest may be.

A coarse grid comes first; then the points where two interpolants disagree most. Points that are
held back from both say when that is enough. It is the logarithm that is interpolated where it
exists, since that is what pictures show: an error that is small beside the walls of a basin may be
many times its floor.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.interpolate import RBFInterpolator

from sparsediag.core.rng import stream

COARSE = 7  # points along each axis to begin with
HELD = 48  # points held back
MARGIN = 0.6  # the largest error at these is less than the largest of all
MOST = 3000  # points to interpolate between: the work grows with their cube
TINY = float(np.finfo(float).tiny)
Fetch = Callable[[np.ndarray], np.ndarray]  # numbers of points -> their values


def adaptive_values(
    shape: tuple[int, int], fetch: Fetch, *, tol: float, seed: int = 0
) -> tuple[np.ndarray, float]:
    """Values at all points of a grid, and the largest error on points held back, of the range.

    Args:
        shape: Of the grid.
        fetch: Computes points.
        tol: Error that is good enough, as a share of the range of the values; the search stops
            where the points held back are off by 0.6 of it, for others may be off by more.
        seed: Seed of the points held back.

    Returns:
        Values, of that shape, and the error, of the values or of their logarithms, whichever is
        larger; exact values and 0 where all points were computed: beyond half of them, or where one
        is not finite.
    """
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"), axis=-1)
    places = places.reshape(-1, 2)
    lines = [np.unique(np.linspace(0, n - 1, COARSE).round().astype(int)) for n in shape]
    coarse = np.ravel_multi_index(np.ix_(*lines), shape).ravel()
    others = np.setdiff1d(np.arange(len(places)), coarse)
    draw = np.random.default_rng(stream("held back", seed).initial_seed())
    held = np.sort(draw.choice(others, min(HELD, len(others)), replace=False))
    known = np.full(len(places), np.nan)
    known[held], known[coarse] = fetch(held), fetch(coarse)
    used = coarse
    most = min(len(places) / 2, MOST)
    while len(used) + len(held) < most and np.isfinite(known[[*used, *held]]).all():
        both = np.concatenate([used, held])
        shown = np.log if (known[both] > 0).all() else np.positive
        smooth, rough = (
            _interpolated(places, known, used, kernel, shown)
            for kernel in ("cubic", "thin_plate_spline")
        )
        error = max(_error(smooth[held], known[held], known[both], f) for f in (np.positive, shown))
        if error <= MARGIN * tol:
            values = _interpolated(places, known, both, "cubic", shown)
            values[both] = known[both]
            return values.reshape(shape), error
        doubt = np.abs(shown(smooth) - shown(rough))
        doubt[both] = -1
        more = _apart(doubt, places, count=max(8, len(used) // 4), shape=shape)
        known[more] = fetch(more)
        used = np.concatenate([used, more])
    rest = np.setdiff1d(np.arange(len(places)), [*used, *held])
    known[rest] = fetch(rest)
    return known.reshape(shape), 0.0


def _interpolated(
    places: np.ndarray, known: np.ndarray, used: np.ndarray, kernel: str, shown: np.ufunc
) -> np.ndarray:
    """Values at all places from those that are used."""
    found = RBFInterpolator(places[used], shown(known[used]), kernel=kernel)(places)
    values: np.ndarray = np.exp(found) if shown is np.log else found
    return values


def _error(came: np.ndarray, real: np.ndarray, seen: np.ndarray, shown: np.ufunc) -> float:
    """The largest error as a share of the range of what was seen."""
    return float(np.abs(shown(came) - shown(real)).max() / max(np.ptp(shown(seen)), TINY))


def _apart(
    doubt: np.ndarray, places: np.ndarray, *, count: int, shape: tuple[int, int]
) -> np.ndarray:
    """The numbers of the most doubtful points, none next to another."""
    cell = 2 / (np.array(shape) - 1)
    chosen: list[int] = []
    doubt = doubt.copy()
    for _ in range(count):
        i = int(doubt.argmax())
        if doubt[i] < 0:
            break
        chosen.append(i)
        doubt[(np.abs(places - places[i]) < 1.5 * cell).all(axis=1)] = -1
    return np.array(chosen)
