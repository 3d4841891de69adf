"""Names of layers in little room, and scales that suit what is drawn."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from sparsediag.plotting import layers, style


def test_names_that_fit_are_kept() -> None:
    assert layers.shorten(["layer1.0.conv1", "layer1.0.conv2"]) == [
        "layer1.0.conv1",
        "layer1.0.conv2",
    ]


def test_long_names_are_cut_and_still_told_apart() -> None:
    stem = "bert.encoder.layer.{}.attention.attention.{}"
    names = [stem.format(i, part) for i in (0, 11) for part in ("query", "key")]
    assert layers.shorten(names)[::3] == ["0.attent.attent.query", "11.attent.attent.key"]
    names = [f"encoder.{i}.intermediate.intermediate_activation" for i in range(12)] + ["fc.act"]
    told = layers.shorten(names)
    assert len(set(told)) == 13
    assert max(map(len, told)) <= layers.LONG
    assert told[11].startswith("en.11.in.")
    assert told[11].endswith("activation")
    alike = [f"{'a' * 15}{i}{'b' * 15}" for i in range(3)]
    assert layers.shorten(alike) == alike
    assert layers.shorten(["one.name.that.is.very.long.weight"]) == ["on.na.th.is.ve.long"]


@pytest.mark.parametrize("count", [1, 8, 21, 60, 400])
def test_names_have_room_on_one_page(count: int) -> None:
    ax = layers.new_layer_axes([f"layer{i}" for i in range(count)])
    ax.plot(range(count), range(count))
    layers.label_rows(ax, [f"layer{i}" for i in range(count)])
    fig = ax.figure
    fig.draw_without_rendering()
    assert fig.get_size_inches()[1] <= 9
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(one.y0 >= other.y1 for one, other in pairwise(boxes))


def test_colours_are_logarithmic_where_values_span_much() -> None:
    from matplotlib.colors import LogNorm

    for values, wide in [([[1.0, 50.0]], True), ([[1.0, 2.0]], False), ([[0.0, 50.0]], False)]:
        ax = style.new_axes()
        layers.heatmap(ax, ["a", "b"], ["1"], np.array(values), label="x")
        assert isinstance(ax.collections[0].norm, LogNorm) == wide
    ax = style.new_axes()
    layers.heatmap(ax, ["a", "b"], ["1"], np.full((1, 2), np.nan), label="nothing")
    ax.figure.draw_without_rendering()


def test_a_logarithmic_axis_needs_positive_values_over_a_decade() -> None:
    for low, scale in [(0.3, "log"), (0.5, "linear"), (0.0, "linear"), (-1.0, "linear")]:
        ax = style.new_axes()
        ax.plot([low, 3.0], [0, 1])
        layers.set_log_scale(ax, "x")
        assert ax.get_xscale() == scale
