"""Claims of the papers as numbers that can be measured; `figures.rule` judges them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from figures.measurement import Results
from figures.rule import SMALLEST


@dataclass(frozen=True)
class Claim:
    """A claim of a paper.

    Attributes:
        says: The claim as a measurable statement, in one short sentence.
        quote: The paper's own words.
        source: Their place in the paper, such as "section 4.1" or "caption".
        margin: Function of an item's results: the effect by seed, positive where the claim holds.
        unit: Unit of the effect.
        paper: The paper's own effect, if it gives one.
        max_gain: Function of the results: the largest possible effect, if it is bounded.
        exact: The effects are computed, not measured: the smallest one decides.
        at_least: The smallest effect that counts; without it half of the paper's own, at most
            `figures.rule.SMALLEST`.
    """

    says: str
    quote: str
    source: str
    margin: Callable[[Results], Mapping[int, float]]
    unit: str = "points"
    paper: float | None = None
    max_gain: Callable[[Results], float] | None = None
    exact: bool = False
    at_least: float | None = None

    @property
    def bound(self) -> float:
        """Return the smallest effect that counts."""
        if self.at_least is not None:
            return self.at_least
        smallest = SMALLEST.get(self.unit, 0.0)
        return smallest if self.paper is None else min(smallest, self.paper / 2)

    def effects(self, results: Results) -> dict[int, float]:
        """Return the effect by seed, where it is finite; of exact ones the smallest."""
        values = {s: float(v) for s, v in self.margin(results).items() if math.isfinite(v)}
        return {0: min(values.values())} if self.exact and values else values

    def room(self, results: Results) -> float:
        """Return the largest possible effect."""
        return self.max_gain(results) if self.max_gain else math.inf
