"""The rule of the verdicts: one paired t-test for each claim, and few false findings over all.

A claim is measured by its effect, one number for each seed: a difference between two trainings that
share nothing with those of another seed, neither the mask nor the order of the data. The claim says
that the effect is larger than a bound, the smallest effect that counts: half of the paper's own
number, but at most 0.5 points of accuracy, a factor of 10^0.05, or 0.05 nats. With n seeds, mean
effect m and standard deviation s,

    t = (m - bound) / (s / √n),    p = 2 P(T > |t|),  T from Student's t with n - 1 degrees.

Benjamini and Hochberg's procedure goes over the p-values of all claims of a scale, so that at most
5 % of the verdicts are expected to be false. (Holm's would allow no false one at all in 95 of 100
cases, and needs about twice the seeds.) A claim is

- reproduced, if the test is significant and the mean is above the bound;
- not reproduced, if it is significant and the mean is below the bound: the effect is smaller than
  what counts, or the opposite is true. This is the upper one of the two one-sided tests for
  equivalence (TOST); the lower one would ask that the effect is not far below 0 either;
- undecided, if it is not significant, with the number of seeds that would decide in 80 % of the
  cases if the effect is as measured: (z(level / 2) + z(0.2))² s² / (m - bound)² plus
  z(level / 2)² / 2, at Benjamini and Hochberg's level for one more verdict; also with fewer than
  three seeds, or if the networks leave less room for improvement than the bound;
- not run, if this scale does not train it.

Both verdicts are about the same bound, so two sets of seeds can only contradict each other where
one of them is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri, stdtr
from scipy.stats import false_discovery_control

Outcome = Literal["reproduced", "not reproduced", "undecided", "not run"]
OUTCOMES: tuple[Outcome, ...] = ("reproduced", "not reproduced", "undecided", "not run")
FALSE_SHARE = 0.05  # expected share of false ones among the verdicts
POWER = 0.8
MIN_SEEDS = 3
ROUNDING = 1e-9  # relative differences between seeds that are no spread
MAX_SEEDS = 1000  # a larger number is not given
SMALLEST = {"points": 0.5, "ratio (log10)": 0.05, "nats": 0.05}  # effects that count, by unit


@dataclass(frozen=True)
class Sample:
    """The measured effects of a claim.

    Attributes:
        values: The effect for each seed.
        bound: The smallest effect that counts.
        room: The largest possible effect.
        exact: The values are computed, not measured: the smallest one decides.
    """

    values: tuple[float, ...]
    bound: float = 0.0
    room: float = math.inf
    exact: bool = False

    @property
    def is_testable(self) -> bool:
        """Return whether there are enough seeds, with some spread, and room for the effect."""
        if self.exact or len(self.values) < MIN_SEEDS or self.room < self.bound:
            return False
        return float(np.ptp(self.values)) > ROUNDING * max(map(abs, self.values))


@dataclass(frozen=True)
class Verdict:
    """The outcome for a claim, and the reason."""

    outcome: Outcome
    why: str


def p_value(values: Sequence[float], bound: float) -> float:
    """Return the two-sided p-value of Student's t-test that the mean is the bound.

    >>> round(p_value([1.0, 2.0, 3.0], 0.0), 4)
    0.0742
    """
    standard_error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    t = (float(np.mean(values)) - bound) / standard_error
    return float(2 * stdtr(len(values) - 1, -abs(t)))


def seeds_needed(values: Sequence[float], bound: float, level: float) -> float:
    """Return how many seeds decide with probability `POWER`, if the effect is as measured.

    The normal approximation with the correction for Student's t of Guenther (The American
    Statistician, 1981).

    Args:
        values: The effect for each seed, with some spread.
        bound: The smallest effect that counts.
        level: Significance level of the two-sided test.
    """
    distance = abs(float(np.mean(values)) - bound)
    if not distance:
        return math.inf
    z, z_power = -ndtri(level / 2), ndtri(POWER)
    spread = float(np.std(values, ddof=1))
    return float(np.ceil(((z + z_power) * spread / distance) ** 2 + z**2 / 2))


def judge(samples: Sequence[Sample]) -> list[Verdict]:
    """Return the verdict on each claim of a scale; the claims are judged together."""
    tested = [i for i, sample in enumerate(samples) if sample.is_testable]
    p_values = [p_value(samples[i].values, samples[i].bound) for i in tested]
    adjusted = false_discovery_control(p_values, method="bh") if tested else []
    found = sum(q <= FALSE_SHARE for q in adjusted)
    level = FALSE_SHARE * min(found + 1, len(tested)) / max(len(tested), 1)
    q_of = dict(zip(tested, adjusted, strict=True))
    return [
        _decide(sample, float(q_of[i]), level) if i in q_of else _explain(sample)
        for i, sample in enumerate(samples)
    ]


def _decide(sample: Sample, q: float, level: float) -> Verdict:
    """Return the verdict on a claim from its adjusted p-value."""
    mean, bound = float(np.mean(sample.values)), sample.bound
    if q > FALSE_SHARE:
        needed = max(seeds_needed(sample.values, bound, level), len(sample.values) + 1)
        seeds = f"about {needed:,.0f}" if needed <= MAX_SEEDS else f"more than {MAX_SEEDS:,}"
        return Verdict("undecided", f"{_q(q)}; {seeds} seeds would decide")
    if mean > bound:
        return Verdict("reproduced", f"more than {bound:g}, {_q(q)}")
    is_opposite = mean < min(bound, 0) and p_value(sample.values, 0) <= level
    words = "the opposite holds" if is_opposite else f"less than {bound:g}"
    return Verdict("not reproduced", f"{words}, {_q(q)}")


def _explain(sample: Sample) -> Verdict:
    """Return the verdict on a claim that is not tested."""
    count = len(sample.values)
    if not count:
        return Verdict("not run", "not trained at this scale")
    if sample.exact:
        holds = min(sample.values) > sample.bound
        return Verdict("reproduced" if holds else "not reproduced", "computed, not measured")
    if sample.room < sample.bound:
        return Verdict("undecided", f"room for an effect of {sample.room:.1f} only")
    if count < MIN_SEEDS:
        return Verdict("undecided", f"{count} of at least {MIN_SEEDS} seeds")
    return Verdict("undecided", "the same number for every seed: its spread is unknown")


def _q(q: float) -> str:
    """Return an adjusted p-value as text."""
    return f"q = {q:.2g}" if q >= 1e-4 else "q < 0.0001"
