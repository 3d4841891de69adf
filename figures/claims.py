"""Claims of the papers, and what measurements say of them, by one rule for all.

A claim is put as a number, its margin, that is positive where it holds, with one value for each
seed. Lottery tickets of all seeds come from one chain: their seeds differ in the order of the data
alone, and intervals are for that ticket. A claim is

- reproduced, if the whole 95 % interval of the margin is above 0;
- not reproduced, if the whole interval is below 0, or below half of the paper's own number;
- not testable at this scale, if the interval allows for both, if there are fewer than two seeds or
  nothing was trained, or if the nets leave less room than half of what the paper found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from figures.estimate import Estimate

Word = Literal["reproduced", "not reproduced", "not testable at this scale"]
Results = Mapping[Any, Any]


@dataclass(frozen=True)
class Claim:
    """A claim of a paper.

    Attributes:
        says: What it comes to here, in a sentence.
        quote: The paper's own words.
        source: Where they stand, such as "section 4.1" or "caption".
        margin: From the results of an item: a number a seed, positive where the claim holds.
        unit: Of the margin.
        paper: The paper's own margin, if it gives one.
        room: From the results: the largest margin that is possible, if there is one.
        exact: The margins are computed, not measured: the least of them decides.
    """

    says: str
    quote: str
    source: str
    margin: Callable[[Results], Iterable[float]]
    unit: str = "points"
    paper: float | None = None
    room: Callable[[Results], float] | None = None
    exact: bool = False

    def judge(self, results: Results) -> Verdict:
        """Return what the results say of the claim."""
        values = [float(v) for v in self.margin(results) if math.isfinite(v)]
        if not values:
            return Verdict(None, "not testable at this scale", "not trained at this scale")
        if self.exact:
            word: Word = "reproduced" if min(values) > 0 else "not reproduced"
            return Verdict(Estimate(min(values)), word, "computed, not measured")
        found = Estimate.of(values)
        if found.count < 2:
            return Verdict(found, "not testable at this scale", "one seed only")
        low, high = found.mean - found.half, found.mean + found.half
        if low > 0:
            return Verdict(found, "reproduced", "the interval is above 0")
        expected = self.paper or 0.0
        room = self.room(results) if self.room else math.inf
        if room < expected / 2:
            why = f"only {room:.1f} {self.unit} of room"
            return Verdict(found, "not testable at this scale", why)
        if high < 0:
            return Verdict(found, "not reproduced", "the interval is below 0")
        if high < expected / 2:
            return Verdict(found, "not reproduced", "the interval is below half of the paper's")
        return Verdict(found, "not testable at this scale", "the interval allows for both")


@dataclass(frozen=True)
class Verdict:
    """A margin as it was measured, what it says of its claim, and why."""

    measured: Estimate | None
    word: Word
    why: str
