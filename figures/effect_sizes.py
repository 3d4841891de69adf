"""Margins of claims about accuracies, a number a seed; labels are (kind, density, seed)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from figures import accuracy

Results = Mapping[Any, Any]
Margin = Callable[[Results], list[float]]
DEAD = 15.0  # percent; nets of ten classes that have learned nothing stay below


def gain(kind: Any, over: Any, *densities: float, whole: bool = False) -> Margin:
    """Return how much better one kind is than another: see `lead`."""
    return lead(kind, (over,), *densities, whole=whole)


def lead(kind: Any, others: Iterable[Any], *densities: float, whole: bool = False) -> Margin:
    """Return how much better a kind is than the best of others.

    Args:
        kind: The kind.
        others: The others; a density that lacks one of them does not count.
        densities: The mean over these, as far as they were trained.
        whole: Nothing, unless all of them were.
    """
    others = tuple(others)

    def leads(results: Results) -> list[float]:
        at = []
        for density in densities:
            own = accuracy.seeds(results, kind, density)
            rivals = [accuracy.seeds(results, other, density) for other in others]
            if own and all(rivals):
                common = set(own).intersection(*rivals)
                at.append({s: own[s] - max(rival[s] for rival in rivals) for s in common})
        if not at or (whole and len(at) < len(densities)):
            return []
        common = set.intersection(*map(set, at))
        return [float(np.mean([found[s] for found in at])) for s in sorted(common)]

    return leads


def joined(join: Callable[..., float], *margins: Callable[[Results], Iterable[float]]) -> Margin:
    """A margin made of several, seed by seed; a seed that lacks one of them is left out."""

    def by_seed(results: Results) -> list[float]:
        found = []
        for seed in sorted({label[-1] for label in results}):
            own = {label: rows for label, rows in results.items() if label[-1] == seed}
            values = [value for margin in margins for value in margin(own)]
            if len(values) == len(margins):
                found.append(float(join(*values)))
        return found

    return by_seed


def less(one: float, other: float) -> float:
    """By how much the first is larger."""
    return one - other


def mean(*values: float) -> float:
    """The mean."""
    return float(np.mean(values))


def room(over: Any, *densities: float) -> Callable[[Results], float]:
    """Return how much better than a kind a net can be at all: points that are missing to 100 %.

    There is no room above nets that have learned nothing: what is compared may be dead too.
    """

    def missing(results: Results) -> float:
        found = [100 - v for d in densities for v in accuracy.seeds(results, over, d).values()]
        missed = float(np.mean(found)) if found else 0.0
        return missed if missed < 100 - DEAD else 0.0

    return missing


def room_above(
    kinds: Iterable[Any], others: Iterable[Any], density: float
) -> Callable[[Results], float]:
    """Points that are missing to 100 % above the best of others.

    There is no room where none of all that are compared is better than chance.
    """
    others = tuple(others)
    every = (*kinds, *others)

    def missing(results: Results) -> float:
        top = accuracy.best(results, every, density)
        bar = accuracy.best(results, others, density)
        return 100 - bar.mean if top and bar and top.mean > DEAD else 0.0

    return missing
