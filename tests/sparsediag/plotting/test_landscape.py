"""Pictures of landscapes: what is drawn where, and that every kind of landscape can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.contour import ContourSet
from matplotlib.text import Text
from PIL import Image
from surfaces import AXIS, BETWEEN, KINDS, LINES, RUN, TRIO, bowl, overflown

from sparsediag import Comparison, compare
from sparsediag.plotting import style
from sparsediag.plotting.landscape import plot_comparison, plot_landscape


def words(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


# pictures


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_written(kind: str, tmp_path: Path) -> None:
    style.save(plot_landscape(KINDS[kind]).figure, tmp_path / "picture")
    with Image.open(tmp_path / "picture.png") as image:
        assert np.asarray(image).std() > 10


@pytest.mark.parametrize("kind", ["line", "plane", "lines"])
def test_what_overflows_can_be_written_too(kind: str, tmp_path: Path) -> None:
    style.save(plot_landscape(overflown(KINDS[kind])).figure, tmp_path / "picture")


def test_the_axes_say_what_they_are_and_in_which_unit() -> None:
    curve, contours = plot_landscape(KINDS["line"]), plot_landscape(RUN)
    assert (curve.get_xlabel(), curve.get_ylabel()) == ("random 0 (filter norms)", "loss")
    assert contours.get_xlabel() == "component 1 (64%)\n(distance)"
    assert contours.get_ylabel() == "component 2 (36%)\n(distance)"
    assert (contours.get_xlim(), contours.get_ylim()) == ((-2, 2), (-2, 2))


def test_a_curve_with_its_centre() -> None:
    found = KINDS["line"]
    curve, centre = plot_landscape(found).get_lines()
    assert curve.get_xydata().tolist() == np.stack([found.axes[0], found.loss], 1).tolist()
    assert centre.get_xydata().tolist() == [[0, 1]]


def test_lines_are_a_mean_in_a_band() -> None:
    ax = plot_landscape(LINES)
    mean, _ = ax.get_lines()
    assert mean.get_ydata() == pytest.approx(2 + 2 * AXIS**2)
    (band,) = ax.collections
    edge = band.get_paths()[0].vertices
    assert (edge[:, 1].min(), edge[:, 1].max()) == (2, 7)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["all lines", "mean", "the weights"]


def test_nets_on_a_line_stand_at_their_own_losses() -> None:
    ax = plot_landscape(BETWEEN)
    _, *nets = ax.get_lines()
    assert [net.get_xydata().tolist() for net in nets] == [[[0, 1.25]], [[1, 0.75]]]
    assert words(ax) == ["a", "b"]


def test_a_plane_has_a_cross_at_its_net() -> None:
    (cross,) = plot_landscape(KINDS["plane"]).get_lines()
    assert cross.get_xydata().tolist() == [[0, 0]]


def test_a_run_is_a_way_whose_markers_have_the_colours_of_their_losses() -> None:
    ax = plot_landscape(RUN)
    for way in ax.get_lines():
        assert way.get_xydata().tolist() == RUN.places.tolist()
    (scale,) = (c for c in ax.collections if isinstance(c, ContourSet) and c.filled)
    (marks,) = (c for c in ax.collections if isinstance(c, PathCollection))
    assert np.asarray(marks.get_offsets()).tolist() == RUN.places.tolist()
    colours = scale.to_rgba(np.maximum(RUN.losses, scale.levels[0]))
    assert np.asarray(marks.get_facecolors()) == pytest.approx(colours)
    assert words(ax) == ["epoch-000\n0.4 off", "epoch-004"]


def test_three_nets_are_all_named() -> None:
    assert words(plot_landscape(TRIO)) == ["a", "b\n0.2 off", "c"]


def test_names_go_inside_and_away_from_the_way() -> None:
    sides = [(text.get_ha(), text.get_va()) for text in plot_landscape(TRIO).texts]
    assert sides == [("left", "bottom"), ("right", "top"), ("left", "bottom")]
    first, last = plot_landscape(
        RUN
    ).texts  # at the right edge, and at the end of a way from the right
    assert (first.get_ha(), last.get_ha()) == ("right", "right")
    assert (first.get_va(), last.get_va()) == ("top", "top")


def test_it_draws_where_it_is_told_to() -> None:
    ax = style.new_axes()
    ax.scatter([0], [0])
    assert plot_landscape(RUN, ax) is ax


@pytest.mark.parametrize("kind", ["plane", "lines"])
def test_pictures_are_in_the_house_style_wherever_they_are_drawn(kind: str) -> None:
    fig = plot_landscape(KINDS[kind]).figure
    texts = [text for text in fig.findobj(Text) if text.get_text()]
    assert {text.get_fontsize() for text in texts} == {7, 8}


# panels


def three(**options: Any) -> Comparison:
    steepness = {"dense": 1.0, "LS": 2.0, "GSk": 4.0}
    return compare({name: bowl(c, **options) for name, c in steepness.items()})


def test_panels_share_their_colours_and_show_differences() -> None:
    found = three()
    fig = plot_comparison(found)
    upper, lower = np.array(fig.axes[:6]).reshape(2, 3)
    assert [ax.get_title() for ax in upper] == found.names
    scales = [next(c for c in ax.collections if isinstance(c, ContourSet)) for ax in upper]
    assert {(s.norm.vmin, s.norm.vmax) for s in scales} == {(1.0, found.losses.max())}
    assert "to the loss of\ndense" in lower[0].texts[0].get_text()
    for ax, losses in zip(lower[1:], found.losses[1:], strict=True):
        (mesh,) = (c for c in ax.collections if isinstance(c, QuadMesh))
        drawn = np.asarray(mesh.get_array()).reshape(21, 21).T
        assert drawn == pytest.approx(np.log10(losses / found.losses[0]))
        assert mesh.get_clim() == pytest.approx((-np.log10(2.5), np.log10(2.5)))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_panels_can_be_written(count: int, tmp_path: Path) -> None:
    names = [f"net {i}" for i in range(count)]
    found = compare({n: bowl(1.0 + i) for i, n in enumerate(names)})
    style.save(plot_comparison(found), tmp_path / "panels")
    with Image.open(tmp_path / "panels.png") as image:
        assert image.width == pytest.approx(200 * style.PAGE, abs=1)


def test_panels_of_what_overflows(tmp_path: Path) -> None:
    names = {"one": overflown(bowl(1.0)), "other": overflown(bowl(2.0))}
    style.save(plot_comparison(compare(names)), tmp_path / "panels")


def test_panels_are_for_planes() -> None:
    with pytest.raises(ValueError, match="panels show planes; need dims=2"):
        plot_comparison(three(dims=1))
