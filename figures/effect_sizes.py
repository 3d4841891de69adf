"""Effect sizes: differences of accuracies, seed by seed, as margins of claims.

Kinds and densities are those of the labels (kind, density, seed). A margin is a function of the
results that returns a number by seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from figures import accuracy
from figures.measurement import Results

Margin = Callable[[Results], Mapping[int, float]]
CHANCE = 15.0  # percent; networks with ten classes that have learned nothing stay below


def seed_differences(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    """Return first minus second for each seed that both have."""
    return {
        seed: float(first[seed] - second[seed]) for seed in sorted(first.keys() & second.keys())
    }


def mean_by_seed(values: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Return the mean of several values by seed, for each seed that all of them have."""
    common = set.intersection(*map(set, values)) if values else set()
    return {seed: float(np.mean([value[seed] for value in values])) for seed in sorted(common)}


def gain(kind: Any, baseline: Any, *densities: float) -> Margin:
    """Return the margin of one kind over another: see `gain_over_best`."""
    return gain_over_best(kind, (baseline,), *densities)


def gain_over_best(kind: Any, baselines: Iterable[Any], *densities: float) -> Margin:
    """Return the margin of one kind over the best of several others.

    The best one is that with the highest mean; the best one of each seed would be better by chance.

    Args:
        kind: The kind.
        baselines: The others; a density that lacks one of them is left out.
        densities: The margin is the mean over those of them that were trained.
    """
    baselines = tuple(baselines)

    def margin(results: Results) -> dict[int, float]:
        gains = []
        for density in densities:
            accuracies = accuracy.by_seed(results, kind, density)
            others = [accuracy.by_seed(results, other, density) for other in baselines]
            if accuracies and all(others):
                common = set(accuracies).intersection(*others)
                best = max(others, key=lambda other: sum(other[seed] for seed in common))
                gains.append({seed: accuracies[seed] - best[seed] for seed in common})
        return mean_by_seed(gains)

    return margin


def difference(first: Margin, second: Margin) -> Margin:
    """Return the first margin minus the second."""
    return lambda results: seed_differences(first(results), second(results))


def mean(*margins: Margin) -> Margin:
    """Return the mean of several margins, for each seed that all have."""
    return lambda results: mean_by_seed([margin(results) for margin in margins])


def weakest(*margins: Margin) -> Margin:
    """Return the one of several margins with the lowest mean, for each seed that all have."""

    def margin(results: Results) -> dict[int, float]:
        effects = [one(results) for one in margins]
        common = set.intersection(*map(set, effects))
        lowest = min(effects, key=lambda effect: sum(effect[seed] for seed in common))
        return {seed: lowest[seed] for seed in sorted(common)}

    return margin


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
