"""Accuracies over sparsity, and the effects that claims are measured by."""

import numpy as np
import pytest

from figures import accuracy, accuracy_plots, effect_sizes
from sparsediag.plotting import style
from sparsediag.plotting.accuracy import LineStyle


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
    assert effect_sizes.gain("tweaked", "plain", 0.1)(RESULTS) == pytest.approx({0: 3, 1: 4})
    assert effect_sizes.gain("tweaked", "plain", 0.02)(RESULTS) == {}
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
