"""Comparisons of bowls whose sharpness is known, and barriers whose height is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
from matplotlib.colors import to_hex
from surfaces import bowl, holding, passed, surface

from sparsediag import Comparison, Landscape, compare, landscape, plane
from sparsediag.plotting import style

FLAT, SHARP = 2.0, 6.0


def pair(**options: Any) -> Comparison:
    return compare({"flat": bowl(FLAT, **options), "sharp": bowl(SHARP, **options)})


def test_what_did_not_converge_is_named() -> None:
    found = compare({"flat": bowl(FLAT), "sharp": replace(bowl(SHARP), converged=False)})
    assert pair().reliable
    assert not found.reliable
    (doubt,) = [line for line in found.remarks() if line.startswith("doubt")]
    assert "sharp" in doubt


# how the loss rises


def test_the_rise_along_a_line_is_that_of_the_parabola() -> None:
    found = pair(dims=1, points=49, span=2.0)  # the radii are points of the grid
    assert found.radii == pytest.approx(np.arange(1, 25) / 12)
    for curvature, rise in zip((FLAT, SHARP), found.rises, strict=True):
        assert rise == pytest.approx(curvature * found.radii**2 / 2, rel=1e-12)


def test_the_rise_in_a_plane_is_that_of_the_bowl() -> None:
    found = pair(points=101)
    cell = 2 / 100
    for curvature, rise in zip((FLAT, SHARP), found.rises, strict=True):
        over = rise - curvature * found.radii**2 / 2
        assert (over >= -1e-12).all()  # chords lie above the bowl
        assert over.max() <= curvature * cell**2 / 4


def test_the_rise_is_the_mean_all_around() -> None:
    both = {"a": surface(lambda a, b: abs(a) + abs(b)), "b": surface(lambda a, b: a - 2 * b)}
    found = compare(both)
    assert found.rises[0] == pytest.approx(4 / np.pi * found.radii, rel=1e-3)
    assert found.rises[1] == pytest.approx(0, abs=1e-12)


def test_the_rise_along_lines_is_their_mean_over_both_sides() -> None:
    axis = np.linspace(-1, 1, 49)
    loss = 5 + np.stack([np.where(axis > 0, 3 * axis, 0), -axis, 7 * axis**2])
    one = holding(loss, axis[None], centre=5.0, curvature=np.array([1.0, 2.0, 6.0]))
    found = compare({"one": one, "other": one})
    assert found.rises[0] == pytest.approx((3 * found.radii / 2 + 7 * found.radii**2) / 3)
    assert found.curvature.tolist() == [3, 3]


def test_the_distance_ends_where_the_picture_does() -> None:
    found = compare({n: surface(lambda a, b: a + b, middle=(0.5, -0.2)) for n in "ab"})
    assert found.radii == pytest.approx(0.5 * np.arange(1, 25) / 24)


def test_the_rise_of_a_quadratic_loss_is_that_of_its_hessian() -> None:
    problem = cases.linear_regression()
    hessian = cases.hessian_of("linear_regression")
    on = plane(problem, vectors=True).orthogonal()
    found = compare({n: landscape(on, points=61, span=1.5, curvature=True) for n in "ab"})
    bends = np.array([float(d @ hessian @ d) for d in on.directions])
    expected = found.radii**2 * bends.sum() / 4
    assert found.rises[0] == pytest.approx(expected, abs=bends.sum() * 0.05**2 / 8)
    lengths = np.array([float(d.norm()) for d in on.directions])
    assert found.curvature == pytest.approx([(bends / lengths**2).mean()] * 2)


# the other numbers


def test_a_basin_is_a_disc() -> None:
    both = {"flat": bowl(FLAT, points=201), "sharp": bowl(SHARP, points=201)}
    for level in (0.1, 0.3):
        found = compare(both, level=level)
        areas = np.pi * 2 * level / np.array([FLAT, SHARP])
        assert found.basins == pytest.approx(areas / 4, rel=0.03)
        assert found.level == level


def test_the_whole_picture_may_be_a_basin() -> None:
    assert compare({n: bowl(0.1) for n in "ab"}, level=0.2).basins.tolist() == [1, 1]


def test_curvature_centres_and_tops_by_name() -> None:
    both = {"sharp": bowl(SHARP, centre=4.0), "flat": bowl(FLAT)}
    found = compare(both, tops={"flat": 8.0})
    assert found.names == ["sharp", "flat"]
    assert found.curvature.tolist() == [SHARP, FLAT]
    assert found.centres.tolist() == [4, 1]
    np.testing.assert_array_equal(found.tops, [np.nan, 8])
    assert found.losses.tolist() == [one.loss.tolist() for one in both.values()]
    assert found.axes.tolist() == both["flat"].axes.tolist()


def test_the_table_and_what_it_cannot_show() -> None:
    found = compare({"flat": bowl(FLAT), "sharp": bowl(SHARP)}, tops={"sharp": 60.0})
    flat, sharp = found.table()
    assert list(flat) == [
        "net",
        "loss",
        "rise at 0.25",
        "rise at 0.5",
        "rise at 1",
        "within 0.1",
        "curvature",
        "of the top",
    ]
    assert (flat["net"], flat["loss"], flat["rise at 1"]) == (
        "flat",
        "1",
        f"{found.rises[0, -1]:.3g}",
    )
    assert (flat["curvature"], flat["of the top"]) == ("2", "")
    assert (sharp["within 0.1"], sharp["of the top"]) == (f"{found.basins[1]:.0%}", "10.0%")
    assert sharp["rise at 0.25"] == f"{found.rises[1, 5]:.3g}"
    (remark,) = found.remarks()
    assert "a random plane misses the sharpest directions" in remark
    assert pair().remarks() == []


def test_a_comparison_goes_through_a_file(tmp_path: Path) -> None:
    found = pair()
    again = Comparison.load(found.save(tmp_path / "comparison.npz"))
    assert again.table() == found.table()
    assert again.losses.tobytes() == found.losses.tobytes()


def test_the_picture_is_the_rise() -> None:
    found = compare({"dense": bowl(FLAT), "mine": bowl(SHARP)})
    dense, mine = found.plot().get_lines()
    assert dense.get_xydata() == pytest.approx(np.stack([found.radii, found.rises[0]], 1))
    assert mine.get_ydata() == pytest.approx(found.rises[1])
    assert to_hex(dense.get_color()) == style.COLOUR_OF["dense"]
    assert (dense.get_label(), mine.get_label()) == ("dense", "mine")


# what is refused


@pytest.mark.parametrize(
    "other",
    [
        bowl(SHARP, points=11),
        bowl(SHARP, span=2.0),
        bowl(SHARP, dims=1),
        bowl(SHARP, unit="layer norms"),
        bowl(SHARP, labels=["random 0", "random 2"]),
    ],
)
def test_other_axes_are_refused(other: Landscape) -> None:
    with pytest.raises(ValueError, match="the landscape of 'other' has other axes"):
        compare({"one": bowl(FLAT), "other": other})


def test_a_shard_is_refused() -> None:
    shard = bowl(SHARP)
    shard.status[3, 4] = 0
    with pytest.raises(ValueError, match="the landscape of 'part' is a shard; join the shards"):
        compare({"one": bowl(FLAT), "part": shard})


def test_fewer_than_two_are_refused() -> None:
    for few in ({}, {"one": bowl(FLAT)}):
        with pytest.raises(ValueError, match=f"got {len(few)} landscape; need two or more"):
            compare(few)


def test_a_picture_without_its_net_is_refused() -> None:
    with pytest.raises(ValueError, match="the nets lie outside of their landscapes"):
        compare({n: bowl(FLAT, middle=(0, 1.5)) for n in "ab"})


# barriers


def way(function: Any, ends: tuple[float, float] = (0, 1)) -> Landscape:
    """A line through two nets at 0 and 1, from -0.5 to 1.5."""
    places = np.array(ends, float)
    about = passed("ab", places[:, None], [0, 0]) | {"heights": function(places)}
    return surface(function, points=41, middle=(0.5,), **about)


def test_the_barrier_of_a_double_well() -> None:
    assert way(lambda x: 1 + 32 * (x * (1 - x)) ** 2).barrier == pytest.approx(2)
    assert way(lambda x: 1 + 32 * (x * (1 - x)) ** 2, ends=(1, 0)).barrier == pytest.approx(2)


def test_a_barrier_is_above_the_higher_end() -> None:
    tilted = way(lambda x: 32 * (x * (1 - x)) ** 2 + 3 * x)
    inside = np.linspace(0, 1, 21)
    top = (32 * (inside * (1 - inside)) ** 2 + 3 * inside).max()
    assert tilted.barrier == pytest.approx(top - 3)


@pytest.mark.parametrize("function", [lambda x: 5 * x, lambda x: -5 * x, lambda x: (x - 0.3) ** 2])
def test_a_way_without_a_hill_has_no_barrier(function: Any) -> None:
    assert way(function).barrier == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "found",
    [
        bowl(FLAT, dims=1),
        bowl(FLAT, **passed("ab", [[0, 0], [1, 1]], [0, 0])),
        bowl(FLAT, dims=1, **passed("abc", [[0], [1], [2]], [0, 0, 0])),
    ],
)
def test_a_barrier_needs_a_line_through_two_nets(found: Landscape) -> None:
    assert np.isnan(found.barrier)


def test_a_comparison_of_overflows_is_shown_and_not_fatal() -> None:
    steep = bowl(SHARP)
    steep.loss[:3], steep.loss[-1] = np.inf, np.nan
    found = compare({"one": bowl(FLAT), "steep": steep, "gone": surface(lambda a, b: a * np.nan)})
    assert np.isfinite(found.rises[1][:10]).all()
    assert len(found.table()) == 3
    found.plot()
