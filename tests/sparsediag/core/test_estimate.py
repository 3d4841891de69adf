"""Means of a few values and their intervals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sparsediag.core.estimate import Estimate


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8, unique=True))
def test_an_estimate_is_students(values: list[float]) -> None:
    found = Estimate.of(values)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.mean - found.half == pytest.approx(interval.low, abs=1e-6)
    assert found.mean + found.half == pytest.approx(interval.high, abs=1e-6)


def test_one_value_has_no_interval() -> None:
    assert Estimate.of([2.0]).half == math.inf
    assert str(Estimate.of([2.0])) == "2.00"
    with pytest.raises(ValueError, match="no values"):
        Estimate.of([])
