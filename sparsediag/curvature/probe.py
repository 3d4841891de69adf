"""A search for eigenvalues that a Krylov space has missed, with a bound on the chance of a miss.

A Krylov space contains as many copies of an eigenvalue as its block has vectors, and nothing of an
eigenvector that is orthogonal to its start. So the complement of the basis is searched from a
random vector.

Beside the wanted vectors, H is [[D, R^T], [R, C]] in the other Ritz vectors and the complement of
the basis, with the Ritz values D and the residuals R, all known. So it has an eigenvalue above t,
which is above D, if and only if C + R (t - D)^-1 R^T has one (Schur complement): this matrix is
searched. If both ends are wanted, it is the mean of the matrices of both.

Let x be its best eigenvalue, and q a random unit vector. The component of q along the eigenvector
of x is at least d, except with a chance of 0.8 d sqrt(size). Lanczos vector j + 1 is p(C) q, of
length 1, where p(t) is the product of the distances of t to the j Ritz values, over the product of
the lengths by which the vectors were divided. So |p(x)| is at most 1 / d, and p grows fast beyond
the Ritz values: x cannot be far beyond them (van Dorsselaer, Hochstenbach & van der Vorst, SIAM J.
Matrix Anal. Appl. 22, 2000).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparsediag.curvature.krylov import Krylov, Ritz

MAX_CHANCE = 1e-4  # of a missed eigenvalue at which a probe ends
Order = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Probe:
    """The result of a search of the complement.

    Attributes:
        best: The best value seen, NaN if there was no probe.
        missed: Whether an eigenvalue better than the wanted ones was seen.
        chance: Bound on the chance that there is one that was not seen.
        bound: No eigenvalue but the wanted ones is better than this, except with a chance of
            `max_chance`; NaN if `chance` is larger, infinite if nothing is left.
        count: Number of products.
    """

    best: float = float("nan")
    missed: bool = False
    chance: float = 1.0
    bound: float = float("nan")
    count: int = 0


def margins(values: np.ndarray, tol: float, eps: float, norm: float) -> np.ndarray:
    """Return the distances up to which other eigenvalues count as equal to `values`."""
    distances: np.ndarray = tol * np.maximum(np.abs(values), eps**0.5 * norm) + 100 * eps * norm
    return distances


def nearly_converged(ritz: Ritz, top: int, margin: float) -> np.ndarray:
    """Return which Ritz pairs may be in the basis if both ends are wanted, the wanted ones first.

    The matrices of both ends then differ from their mean by at most margin / 2.
    """
    target = abs(ritz.values[top - 1]) + margin
    shifts = ritz.residuals[top:] ** 2 * target / (target**2 - ritz.values[top:] ** 2)
    least = np.argsort(shifts, kind="stable")
    rest = least[np.cumsum(shifts[least]) <= margin / 2]
    return np.append(np.arange(top), top + np.sort(rest))


def probe_complement(
    krylov: Krylov,
    ritz: Ritz,
    top: int,
    order: Order,
    tol: float,
    limit: int,
    max_chance: float = MAX_CHANCE,
) -> Probe:
    """Grow the basis from a random vector until a better eigenvalue would have appeared.

    Args:
        krylov: A basis of the wanted vectors and others; if both ends are wanted, of those that
            `nearly_converged` allows.
        ritz: Its Ritz pairs.
        top: Number of wanted pairs.
        order: What is better has the smaller `order(value)`.
        tol: Relative difference up to which an eigenvalue is not better.
        limit: Largest number of products.
        max_chance: The chance of a missed eigenvalue at which the probe ends.
    """
    first, levels = len(krylov), -order(ritz.values)
    size, rounding = krylov.size - first, 10 * krylov.eps * krylov.norm
    differences = margins(ritz.values[:top], tol, krylov.eps, krylov.norm)
    signs = np.array([[s] for s in (1.0, -1.0) if order(np.array(s)) < 0])
    others, squares = ritz.coordinates[:, top:], ritz.residuals[top:] ** 2

    def schur_weights(level: float) -> np.ndarray:
        """Return 1 / (t - D) for each end."""
        distances = (level - signs * ritz.values[top:]).clip(np.finfo(float).tiny)
        ends: np.ndarray = signs / distances
        return ends

    highest = levels[top - 1] + differences[-1]
    weights = schur_weights(highest).mean(axis=0)

    def excess(level: float) -> float:
        """Bound what the matrix of this level, at either end, is above the one searched."""
        return float((squares * np.abs(schur_weights(level) - weights)).sum(axis=1).max())

    target = highest - excess(highest)
    seen = lengths = np.zeros(0)
    best, floor, chance, count = float("nan"), -float("inf"), 1.0, 0

    def chance_beyond(level: float) -> float:
        """Bound the chance that the complement has an eigenvalue better than `level`."""
        distances = level - signs * seen
        if distances.min(initial=np.inf) <= 0:
            return 1.0
        growth = np.log(distances).sum(axis=1) - np.log(lengths).sum()
        return min(1.0, float(0.8 * size**0.5 * np.exp(-growth.clip(0)).sum()))

    direction = None
    while count < limit and chance > max_chance and len(krylov) < krylov.size:
        if direction is None:  # at the start, or the remainder of the product is only rounding
            krylov.grow(krylov.random(1))
        else:
            krylov.grow(direction, passes=0)
        count += 1
        residuals = krylov.projected[first:, :first] @ others  # R, (count, others)
        inside = krylov.projected[first:, first:] + residuals * weights @ residuals.T
        newest = np.zeros(len(krylov))
        newest[:first], newest[-1] = others @ (weights * residuals[-1]), 1
        direction, length = krylov.residual_direction(newest)
        lengths = np.append(np.abs(np.diagonal(inside, -1)), length).clip(rounding)
        seen = np.linalg.eigvalsh(inside)
        best, floor = float(seen[np.argmin(order(seen))]), float((signs * seen).max())
        now = np.linalg.eigvalsh(krylov.projected)
        gains = np.sort(-order(now))[: -top - 1 : -1] - levels[:top]
        if floor > target or (gains > differences / 2).any():
            return Probe(best, True, 0.0, np.nan, count)
        chance = chance_beyond(target)
    if len(krylov) == krylov.size:
        chance, edge = 0.0, floor
    elif chance <= max_chance:
        edge = smallest(lambda level: chance_beyond(level) <= max_chance, floor, target)
    else:
        return Probe(best, False, chance, np.nan, count)
    worst = float(levels[top:].max(initial=edge))
    if np.isfinite(edge):
        worst = smallest(lambda x: edge + excess(x) <= x, worst, highest)
    return Probe(best, False, chance, worst * signs[0, 0], count)


def smallest(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return about the smallest number between that `holds`; it does for `high`, not for `low`."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if low < middle and holds(middle) else (middle, high)
    return high
