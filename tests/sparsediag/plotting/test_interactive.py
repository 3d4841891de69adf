"""Surfaces that can be rotated: heights, the networks on them, and pages without a network."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from surfaces import AXIS, BETWEEN, KINDS, LINES, RUN, TRIO, overflown

from sparsediag.plotting import interactive, style
from sparsediag.plotting.interactive import landscape_figure


def test_a_surface_has_the_first_index_along_x() -> None:
    x, y = np.linspace(0, 4, 5), np.linspace(10, 14, 5)
    loss = np.tile(1 + x[:, None], 5)
    levels = style.loss_levels(loss)
    fig = interactive.surface_figure(np.stack([x, y]), loss, ["one", "two"], levels)
    (data,) = fig.data
    assert np.array(data.z)[0].tolist() == [1, 2, 3, 4, 5]
    assert (list(data.x), list(data.y)) == (x.tolist(), y.tolist())
    assert fig.layout.scene.xaxis.title.text == "one"
    assert fig.layout.scene.yaxis.title.text == "two"


def test_a_loss_over_decades_has_a_logarithmic_height_and_shows_its_minimum() -> None:
    axis = np.linspace(-1, 1, 5)
    loss = 0.05 + 531 * np.maximum.outer(axis**8, axis**8)
    found = overflown(KINDS["plane"])
    fig = landscape_figure(
        type(found)(**{**vars(found), "loss": loss, "axes": np.stack([axis, axis]), "centre": 0.05})
    )
    surface, pin = fig.data
    assert pytest.approx(loss, rel=1e-2) == np.power(10, np.array(surface.z)).T
    assert surface.text[2][2] == "0.05"
    assert list(fig.layout.scene.zaxis.ticktext) == ["0.1", "1", "10", "100"]
    assert pin.z[0] == pytest.approx(np.log10(0.05), abs=1e-3)
    assert pin.text[1] == "loss 0.05"


@pytest.mark.parametrize("kind", ["line", "plane", "lines"])
def test_what_overflows_is_left_out(kind: str) -> None:
    fig = landscape_figure(overflown(KINDS[kind]))
    drawn = json.loads(fig.to_json())["data"][0]
    assert None in np.array(drawn["z" if kind == "plane" else "y"], object)


def test_a_run_moves_on_its_surface() -> None:
    fig = landscape_figure(RUN)
    ground, path = fig.data
    assert pytest.approx(np.log10(RUN.loss), abs=1e-3) == np.array(ground.z).T
    for axis, values in zip("xy", RUN.places.T, strict=True):
        assert list(path[axis]) == values.tolist()
    low = style.loss_levels(RUN.loss, RUN.losses)[0]
    heights = np.log10(np.maximum(RUN.losses, low))
    assert list(path.z) == pytest.approx(heights.tolist(), abs=1e-3)
    assert list(path.text) == [RUN.stops[0], "", "", "", RUN.stops[-1]]
    assert [frame.name for frame in fig.frames] == RUN.stops
    for i, frame in enumerate(fig.frames):
        assert list(frame.traces) == [1]
        assert list(frame.data[0].x) == RUN.places[: i + 1, 0].tolist()
    (slider,), (menu,) = fig.layout.sliders, fig.layout.updatemenus
    assert [step.args[0] for step in slider.steps] == [(name,) for name in RUN.stops]
    assert menu.buttons[0].method == "animate"


def test_three_networks_are_named_and_stand_still() -> None:
    fig = landscape_figure(TRIO)
    assert list(fig.data[1].text) == TRIO.stops
    assert fig.frames == ()


def test_lines_are_labelled_and_have_their_networks_on_them() -> None:
    *lines, weights = landscape_figure(LINES).data
    assert [line.name for line in lines] == ["line 1", "line 2", "line 3"]
    assert np.array([line.y for line in lines]) == pytest.approx(LINES.loss, rel=1e-3)
    assert list(lines[0].x) == AXIS.tolist()
    assert list(weights.text) == ["the weights"]
    fig = landscape_figure(BETWEEN)
    assert list(fig.data[1].text) == BETWEEN.stops
    assert fig.layout.xaxis.title.text == "towards b (way to the other net)"


def test_a_page_needs_no_network_and_says_what_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    interactive.write_page(landscape_figure(LINES), path, title="Loss", about="a <net>")
    page = path.read_text(encoding="utf-8")
    assert "<h1>Loss</h1><p>a &lt;net&gt;</p>" in page
    assert "3 random lines" in page
    assert re.search(r"<(script|link)[^>]*\b(src|href)=", page) is None
    assert list(path.parent.iterdir()) == [path]
