"""Claims of the papers, and the rule that decides what the measurements say about them.

A claim is measured by its margin, a number that is positive where the claim holds, with one value
for each seed. The lottery tickets of all seeds have the same mask: their seeds differ only in the
order of the data, and the intervals hold for that mask. A claim is

- reproduced, if the whole 95 % interval of the margin is above 0;
- not reproduced, if the whole interval is below 0, or below half of the paper's own number;
- not testable at this scale, if the interval allows for both, if there are fewer than two seeds or
  nothing was trained, or if the networks leave less room for improvement than half of the effect
  in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from figures.measurement import Results
from sparsediag.core.estimate import Estimate

Outcome = Literal["reproduced", "not reproduced", "not testable at this scale"]


@dataclass(frozen=True)
class Claim:
    """A claim of a paper.

    Attributes:
        says: The claim as a measurable statement, in one sentence.
        quote: The paper's own words.
        source: Their place in the paper, such as "section 4.1" or "caption".
        margin: Function of an item's results: one number per seed, positive where the claim holds.
        unit: Unit of the margin.
        paper: The paper's own margin, if it gives one.
        max_gain: Function of the results: the largest possible margin, if it is bounded.
        exact: The margins are computed, not measured: the smallest one decides.
    """

    says: str
    quote: str
    source: str
    margin: Callable[[Results], Iterable[float]]
    unit: str = "points"
    paper: float | None = None
    max_gain: Callable[[Results], float] | None = None
    exact: bool = False

    def judge(self, results: Results) -> Verdict:
        """Return what the results say about the claim."""
        values = [float(v) for v in self.margin(results) if math.isfinite(v)]
        if not values:
            return Verdict(None, "not testable at this scale", "not trained at this scale")
        if self.exact:
            outcome: Outcome = "reproduced" if min(values) > 0 else "not reproduced"
            return Verdict(Estimate(min(values)), outcome, "computed, not measured")
        margin = Estimate.of(values)
        if margin.count < 2:
            return Verdict(margin, "not testable at this scale", "one seed only")
        low, high = margin.mean - margin.half, margin.mean + margin.half
        if low > 0:
            return Verdict(margin, "reproduced", "the interval is above 0")
        expected = self.paper or 0.0
        largest = self.max_gain(results) if self.max_gain else math.inf
        if largest < expected / 2:
            reason = f"only {largest:.1f} {self.unit} of room"
            return Verdict(margin, "not testable at this scale", reason)
        if high < 0:
            return Verdict(margin, "not reproduced", "the interval is below 0")
        if high < expected / 2:
            return Verdict(margin, "not reproduced", "the interval is below half of the paper's")
        return Verdict(margin, "not testable at this scale", "the interval allows for both")


@dataclass(frozen=True)
class Verdict:
    """The measured margin of a claim, the outcome, and the reason for it."""

    measured: Estimate | None
    outcome: Outcome
    why: str
