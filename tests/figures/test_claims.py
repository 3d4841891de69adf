"""Estimates, claims and their rule, tables, and accuracies over sparsity."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from figures import accuracy, accuracy_plots, effect_sizes
from figures.accuracy_plots import LineStyle
from figures.claims import Claim
from figures.estimate import Estimate
from figures.tables import Table
from sparsediag.plotting import style


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


def claim(values: list[float], paper: float | None = None, room: float | None = None) -> Claim:
    margin = None if room is None else (lambda _: room)
    return Claim("says", "quote", "source", lambda _: values, paper=paper, max_gain=margin)


@pytest.mark.parametrize(
    ("given", "word", "why"),
    [
        (claim([1.0, 1.1, 0.9]), "reproduced", "above 0"),
        (claim([-1.0, -1.1, -0.9]), "not reproduced", "below 0"),
        (claim([1.0, -1.0, 0.5]), "not testable", "allows for both"),
        (claim([0.1, 0.0, -0.1], paper=2.0), "not reproduced", "half of the paper's"),
        (claim([0.1, 0.0, -0.1], paper=0.4), "not testable", "allows for both"),
        (claim([0.1, 0.0, -0.1], paper=2.0, room=0.9), "not testable", "0.9 points of room"),
        (claim([-1.0, -1.1, -0.9], paper=2.0, room=0.9), "not testable", "room"),
        (claim([1.0, 1.1, 0.9], paper=2.0, room=0.9), "reproduced", "above 0"),
        (claim([5.0]), "not testable", "one seed"),
        (claim([]), "not testable", "not trained"),
        (claim([math.nan, 1.0]), "not testable", "one seed"),
    ],
)
def test_the_rule(given: Claim, word: str, why: str) -> None:
    verdict = given.judge({})
    assert verdict.outcome.startswith(word)
    assert why in verdict.why


def test_what_is_computed_needs_no_seeds() -> None:
    for least, word in ((0.1, "reproduced"), (-0.1, "not reproduced")):
        exact = Claim("says", "quote", "source", lambda _, v=least: [1.0, v], exact=True)
        assert exact.judge({}).outcome == word
        assert exact.judge({}).measured == Estimate(least)


TABLE = Table(
    "accuracy (%)",
    ("kind & so on", "paper", "here"),
    (
        ("a", 71.12, Estimate.of([70.0, 71.0, 72.0])),
        ("b", None, Estimate.of([3.0])),
        ("c", 1.0, None),
    ),
)


def test_a_table_as_markdown_latex_and_csv() -> None:
    assert TABLE.markdown().splitlines()[2:] == [
        "| a | 71.12 | 71.00 ± 2.48 |",
        "| b | – | 3.00 |",  # noqa: RUF001
        "| c | 1.00 | – |",  # noqa: RUF001
    ]
    latex = TABLE.latex().splitlines()
    assert latex[0] == r"\begin{tabular}{lrr}"
    assert latex[2] == r"kind \& so on & paper & here \\"
    assert latex[4] == r"a & 71.12 & 71.00 $\pm$ 2.48 \\"
    assert latex[5] == r"b & -- & 3.00 \\"
    rows = TABLE.csv().splitlines()
    assert rows[0] == "kind & so on,paper,here,here ±"
    assert rows[1].startswith("a,71.12,71.0,2.484")
    assert rows[2:] == ["b,,3.0,", "c,1.0,,"]


def test_a_table_as_html_names_its_rows_and_columns() -> None:
    text = TABLE.html()
    assert text.count('<th scope="col"') == 3
    assert '<th scope="row">a</th><td class="n">71.12</td><td class="n">71.00 ± 2.48</td>' in text
    assert "kind &amp; so on" in text


def test_a_table_as_a_picture_has_every_cell() -> None:
    (ax,) = TABLE.figure().axes
    cells = ax.tables[0].get_celld()
    assert cells[1, 2].get_text().get_text() == "71.00 ± 2.48"
    assert cells[0, 0].get_text().get_text() == "kind & so on"
    assert ax.get_title(loc="left") == "accuracy (%)"


def rows(percent: float) -> list[dict[str, float]]:
    return [
        {"val_accuracy": 1.0},
        {"test_accuracy": percent / 100, "best": True},
        {"test_accuracy": 0},
    ]


RESULTS = {
    ("plain", 1.0, 0): rows(95),
    ("plain", 0.1, 0): rows(90),
    ("plain", 0.1, 1): rows(92),
    ("tweaked", 0.1, 0): rows(93),
    ("tweaked", 0.1, 1): rows(96),
    ("tweaked", 0.02, 0): rows(50),
}


def test_accuracy_is_that_of_the_best_epoch() -> None:
    assert accuracy.accuracy(rows(97)) == pytest.approx(97)


def test_gains_are_by_seed_and_room_is_what_is_missing() -> None:
    assert effect_sizes.gain("tweaked", "plain", 0.1)(RESULTS) == pytest.approx([3, 4])
    assert effect_sizes.gain("tweaked", "plain", 0.02)(RESULTS) == []
    assert effect_sizes.max_gain("plain", 0.1)(RESULTS) == pytest.approx(9)
    assert accuracy.estimate(RESULTS, "plain", 0.02) is None


def test_a_plot_over_sparsity_has_means_intervals_and_the_dense_line() -> None:
    ax = style.new_axes()
    curves = {"plain": ("Plain", LineStyle("black")), "tweaked": ("T", LineStyle("red", "s", ":"))}
    accuracy_plots.plot(ax, RESULTS, curves)
    accuracy_plots.plot_dense(ax, RESULTS, "plain", "black")
    plain, tweaked = ax.containers
    assert tweaked.lines[0].get_markerfacecolor() == "white"
    np.testing.assert_allclose(plain.lines[0].get_ydata(), [91])
    np.testing.assert_allclose(sorted(tweaked.lines[0].get_ydata()), [50, 94.5])
    assert [line.get_ydata()[0] for line in ax.get_lines() if line.get_linestyle() == "--"] == [95]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["90", "98"]
    left, right = ax.get_xlim()
    assert left > right
