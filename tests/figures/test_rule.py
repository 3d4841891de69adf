"""The rule of the verdicts, in closed form and by simulation."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from figures import rule
from figures.claims import Claim
from figures.rule import Sample, judge, p_value, seeds_needed


@pytest.mark.parametrize(
    ("sample", "outcome", "why"),
    [
        (Sample((1.0, 1.1, 0.9), 0.5), "reproduced", "more than 0.5"),
        (Sample((0.1, 0.2, 0.0), 0.5), "not reproduced", "less than 0.5"),
        (Sample((-1.0, -1.1, -0.9), 0.5), "not reproduced", "the opposite holds"),
        (Sample((-0.5, -0.6, -0.4), -1.0), "reproduced", "more than -1"),
        (Sample((1.0, -1.0, 1.4), 0.5), "undecided", "more than 1,000 seeds"),
        (Sample((2.0, 0.0, 1.5), 0.5), "undecided", "about 22 seeds would decide"),
        (Sample((1.0, 1.1, 0.9), 0.5, room=0.4), "undecided", "0.4 only"),
        (Sample((1.0, 1.1), 0.5), "undecided", "2 of at least 3 seeds"),
        (Sample((1.0, 1.0, 1.0 + 1e-15), 0.5), "undecided", "spread is unknown"),
        (Sample((), 0.5), "not run", "not trained"),
        (Sample((0.1,), exact=True), "reproduced", "computed"),
        (Sample((-0.1,), exact=True), "not reproduced", "computed"),
    ],
)
def test_one_claim(sample: Sample, outcome: str, why: str) -> None:
    (verdict,) = judge([sample])
    assert (verdict.outcome, why in verdict.why) == (outcome, True), verdict


def test_the_p_value_is_that_of_the_paired_t_test() -> None:
    values, mean, deviation = [0.3, 1.2, 2.4, 0.9], 1.2, math.sqrt(2.34 / 3)
    t = (mean - 0.5) / (deviation / 2)
    assert p_value(values, 0.5) == pytest.approx(2 * stats.t.sf(t, 3))
    first, second = np.array([[70.1, 71.3, 69.9, 72.0], [69.0, 70.8, 68.1, 71.7]])
    p = stats.ttest_rel(first, second).pvalue
    assert p_value(list(first - second), 0.0) == pytest.approx(p)


def with_p(p: float) -> Sample:
    """Three values whose test against 0 has this p-value."""
    t = stats.t.isf(p / 2, 2)
    return Sample(tuple(t / math.sqrt(3) + step for step in (-1.0, 0.0, 1.0)))


def test_benjamini_and_hochberg_go_over_all_claims_that_are_tested() -> None:
    """With 5 tests the steps are 0.01, 0.02, ..., 0.05: the largest p below its step decides."""
    p_values = (0.5, 0.009, 0.029, 0.025, 0.9)
    others = [Sample(()), Sample((1.0,)), Sample((1.0,), exact=True)]
    outcomes = [v.outcome for v in judge([*map(with_p, p_values), *others])]
    assert outcomes[:5] == ["undecided", "reproduced", "reproduced", "reproduced", "undecided"]
    assert outcomes[5:] == ["not run", "undecided", "reproduced"]
    (alone,) = judge([with_p(0.049)])
    assert alone.outcome == "reproduced"
    assert judge([with_p(0.049), with_p(0.9)])[0].outcome == "undecided"


def simulate(
    effects: np.ndarray, seeds: int, *, shared: float, repeats: int
) -> tuple[float, float]:
    """Return the mean share of false verdicts, and the share of effects that are found.

    Claims compare with a common baseline: a share of their variance, 1 in all, is the same.
    """
    rng, bound = np.random.default_rng(0), 0.5
    false, found = [], []
    for _ in range(repeats):
        noise = rng.normal(0, math.sqrt(1 - shared), (len(effects), seeds))
        values = effects[:, None] + noise + rng.normal(0, math.sqrt(shared), seeds)
        verdicts = judge([Sample(tuple(row), bound) for row in values])
        sign = np.array([{"rep": 1, "not": -1, "und": 0}[v.outcome[:3]] for v in verdicts])
        right = (sign != 0) & (sign == np.sign(effects - bound))
        false.append(((sign != 0) & ~right).sum() / max(1, (sign != 0).sum()))
        found.append(right.sum() / max(1, (effects != bound).sum()))
    return float(np.mean(false)), float(np.mean(found))


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_few_verdicts_are_false(shared: float) -> None:
    nothing = np.full(20, 0.5)
    some = np.concatenate([nothing, np.linspace(-3, 4, 20)])
    for effects in (nothing, some):
        false, _ = simulate(effects, 6, shared=shared, repeats=60)
        assert false <= rule.FALSE_SHARE + 0.05  # two standard errors of 60 repeats
    assert simulate(some, 6, shared=shared, repeats=20)[1] > 0.4


def test_the_number_of_seeds_decides_in_four_of_five_cases() -> None:
    values = (2.0, 0.0, 1.5)
    needed = int(seeds_needed(values, 0.5, 0.05))
    effect, deviation = np.mean(values), np.std(values, ddof=1)
    draws = np.random.default_rng(0).normal(effect, deviation, (4000, needed))
    significant = stats.ttest_1samp(draws, 0.5, axis=1).pvalue <= 0.05
    assert significant.mean() == pytest.approx(0.8, abs=0.03)
    assert seeds_needed(values, 0.5, 0.005) > needed
    assert seeds_needed((0.4, 0.5, 0.6), 0.5, 0.05) == math.inf


def test_the_smallest_effect_that_counts() -> None:
    def bound(**options: Any) -> float:
        return Claim("says", "quote", "source", lambda _: {}, **options).bound

    assert bound() == bound(paper=14.15) == 0.5
    assert bound(paper=0.41) == pytest.approx(0.205)
    assert bound(unit="nats") == bound(unit="ratio (log10)") == 0.05
    assert bound(at_least=-1, paper=5.0) == -1
