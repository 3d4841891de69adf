"""Effect sizes: differences of accuracies, seed by seed, as margins of claims.

Kinds and densities are those of the labels (kind, density, seed). A margin is a function of the
results that returns one number per seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from figures import accuracy
from figures.measurement import Results

Margin = Callable[[Results], list[float]]
CHANCE = 15.0  # percent; networks with ten classes that have learned nothing stay below


def seed_differences(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    """Return first minus second for each seed that both have."""
    return [float(first[seed] - second[seed]) for seed in sorted(first.keys() & second.keys())]


def mean_by_seed(values: Sequence[Mapping[int, float]]) -> list[float]:
    """Return the mean of several values by seed, for each seed that all of them have."""
    common = set.intersection(*map(set, values)) if values else set()
    return [float(np.mean([value[seed] for value in values])) for seed in sorted(common)]


def gain(kind: Any, baseline: Any, *densities: float, complete: bool = False) -> Margin:
    """Return the margin of one kind over another: see `gain_over_best`."""
    return gain_over_best(kind, (baseline,), *densities, complete=complete)


def gain_over_best(
    kind: Any, baselines: Iterable[Any], *densities: float, complete: bool = False
) -> Margin:
    """Return the margin of one kind over the best of several others.

    Args:
        kind: The kind.
        baselines: The others; a density that lacks one of them is left out.
        densities: The margin is the mean over those of them that were trained.
        complete: Return nothing unless all densities were trained.
    """
    baselines = tuple(baselines)

    def margin(results: Results) -> list[float]:
        gains = []
        for density in densities:
            accuracies = accuracy.by_seed(results, kind, density)
            others = [accuracy.by_seed(results, other, density) for other in baselines]
            if accuracies and all(others):
                common = set(accuracies).intersection(*others)
                gains.append({s: accuracies[s] - max(other[s] for other in others) for s in common})
        if complete and len(gains) < len(densities):
            return []
        return mean_by_seed(gains)

    return margin


def combine(
    function: Callable[..., float], *margins: Callable[[Results], Iterable[float]]
) -> Margin:
    """Return the margin that a function computes from several, seed by seed.

    A seed that lacks one of them is left out.
    """

    def margin(results: Results) -> list[float]:
        combined = []
        for seed in sorted({label[-1] for label in results}):
            of_seed = {label: value for label, value in results.items() if label[-1] == seed}
            values = [value for one in margins for value in one(of_seed)]
            if len(values) == len(margins):
                combined.append(float(function(*values)))
        return combined

    return margin


def difference(first: Margin, second: Margin) -> Margin:
    """Return the first margin minus the second."""
    return combine(lambda a, b: a - b, first, second)


def mean(*margins: Margin) -> Margin:
    """Return the mean of several margins."""
    return combine(lambda *values: float(np.mean(values)), *margins)


def minimum(*margins: Margin) -> Margin:
    """Return the smallest of several margins."""
    return combine(lambda *values: min(values), *margins)


def max_gain(kind: Any, *densities: float) -> Callable[[Results], float]:
    """Return the largest possible gain over a kind: its distance from 100 %, in points.

    It is 0 for networks at chance: what they are compared with may have learned nothing either.
    """

    def points(results: Results) -> float:
        errors = [100 - a for d in densities for a in accuracy.by_seed(results, kind, d).values()]
        error = float(np.mean(errors)) if errors else 0.0
        return error if error < 100 - CHANCE else 0.0

    return points


def max_gain_over_best(
    kinds: Iterable[Any], baselines: Iterable[Any], density: float
) -> Callable[[Results], float]:
    """Return the largest possible gain over the best of several kinds, in points.

    It is 0 if none of all that are compared is better than chance.
    """
    baselines = tuple(baselines)
    compared = (*kinds, *baselines)

    def points(results: Results) -> float:
        top = accuracy.best_estimate(results, compared, density)
        best = accuracy.best_estimate(results, baselines, density)
        return 100 - best.mean if top and best and top.mean > CHANCE else 0.0

    return points
