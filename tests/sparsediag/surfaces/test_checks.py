"""Findings: each is made where it should be, and only there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cases
import numpy as np
import pytest
import torch
from surfaces import bowl, surface
from torch import nn

from sparsediag import Plane, Problem, plane
from sparsediag.surfaces import plane as planes
from sparsediag.surfaces.checks import check_grid, check_plane
from sparsediag.surfaces.directions import grid_axis
from sparsediag.surfaces.evaluate import LossEvaluator, Statistics


def said(
    on: Problem | Plane, *, statistics: Statistics = "fixed", expected: float | None = None
) -> list[str]:
    if isinstance(on, Problem):
        on = plane(on).orthogonal()
    return check_plane(LossEvaluator(on, statistics=statistics), expected=expected)


def only(findings: list[str], message: str) -> bool:
    """Whether there is this finding and no other."""
    return len(findings) == 1 and message in findings[0]


def normed(**options: Any) -> Problem:
    """A net with batch norm and dropout whose statistics are those of its samples."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3))
    batches = cases.classes((12,), (4,), 3)
    net.double()[1].momentum = None
    net.train()(batches[0][0])
    return Problem(net.eval(), batches, **options)


def stale(**options: Any) -> Problem:
    """The same with statistics of other samples."""
    net = normed().net
    net[1].running_mean.add_(10)
    return Problem(net, cases.classes((12,), (4,), 3), **options)


# the net, its data, its directions


def training(problem: Problem) -> Problem:
    problem.net.train()
    return problem


@pytest.mark.parametrize(
    "make",
    [
        cases.tanh_mlp,
        cases.masked_mlp,
        cases.linear_regression,
        normed,
        lambda: training(cases.tanh_mlp()),  # without dropout and batch norm
        lambda: training(stale(batch_norm="train")),  # as was asked for
    ],
)
@pytest.mark.parametrize("statistics", ["fixed", "estimate"])
def test_a_sound_landscape_has_no_findings(
    make: Callable[[], Problem], statistics: Statistics
) -> None:
    problem = make()
    assert said(problem, statistics=statistics, expected=problem.value()) == []


def test_training_mode() -> None:
    problem = normed()
    problem.net.train()
    message = "the network was in training mode; it was measured in evaluation mode"
    assert said(problem) == [message]
    problem.net[1].eval()
    assert said(problem) == [message]  # dropout is still on
    problem.net[2].eval()
    assert said(problem) == []


def test_missing_classes() -> None:
    problem = cases.softmax_regression()
    x, _ = problem.batches[0]
    labels = torch.tensor([0, 2, 0, 2, 2, 2, 0, 0, 0])
    assert said(Problem(problem.net, [(x, labels)])) == [
        "only 2 of 4 classes are among the samples"
    ]
    halves = [(x[:2], torch.tensor([0, 1])), (x[2:4], torch.tensor([2, 3]))]
    assert said(Problem(problem.net, halves)) == []


@pytest.mark.parametrize(("statistics", "found"), [("fixed", True), ("estimate", False)])
def test_stale_batch_norm(statistics: Statistics, found: bool) -> None:
    findings = said(stale(), statistics=statistics)
    if not found:
        assert findings == []
        return
    assert only(findings, "batch norm's running statistics are stale: the loss is ")
    assert f"{stale().value():.3g} with them, {normed().value():.3g} with those" in findings[0]


def test_a_net_that_is_not_the_one_that_was_trained() -> None:
    problem = cases.tanh_mlp()
    value = problem.value()
    assert said(problem, expected=1.2 * value) == [
        f"the loss of the network is {value:.4g}, its training recorded {1.2 * value:.4g}"
    ]
    assert said(problem, expected=value + 0.009) == []


class Shifted(LossEvaluator):
    """A sweep that is wrong."""

    def __call__(self, point: np.ndarray, **options: Any) -> tuple[float, float]:
        loss, accuracy = super().__call__(point, **options)
        return loss + 0.5, accuracy


def test_a_centre_that_is_not_the_net() -> None:
    on = plane(cases.tanh_mlp()).orthogonal()
    own = on.problem.value()
    message = f"the loss at the centre is {own + 0.5:.5g}, that of the network itself {own:.5g}"
    assert check_plane(Shifted(on)) == [message]
    assert check_plane(Shifted(on, statistics="estimate")) == []


def two(cosine: float, **about: Any) -> Plane:
    problem = cases.tanh_mlp()
    vectors = torch.zeros(2, problem.size, dtype=torch.float64)
    vectors[0, 0], vectors[1, 0], vectors[1, 1] = 3, cosine, (1 - cosine**2) ** 0.5
    return planes.plane_from_vectors(problem, vectors, ["one", "other"], **about)


@pytest.mark.parametrize("cosine", [0.31, -0.5])
def test_axes_that_are_not_orthogonal(cosine: float) -> None:
    on = two(cosine)
    assert said(on) == [f"the axes have a cosine of {abs(cosine):.2f}; use orthogonal=True"]
    assert said(on.orthogonal()) == []


def test_axes_that_are_nearly_orthogonal_or_no_axes() -> None:
    assert said(two(-0.09)) == []
    assert said(two(0.9, lines=True, doubts=["of the plane"])) == ["of the plane"]
    assert said(plane(cases.tanh_mlp(), dims=1)) == []


# the finished grid

NAN, INF = float("nan"), float("inf")
UNIT = grid_axis(25, 1.0)


def test_bowls_of_all_kinds_have_no_findings() -> None:
    slope = surface(lambda a, b: np.exp(a + b / 2), points=25).loss
    for loss in (bowl(3.0).loss, bowl(3.0, dims=1).loss, slope, np.array([[1.0, 2], [2, 3]])):
        assert check_grid(loss, 1.0, axes=np.ndim(loss)) == []


@pytest.mark.parametrize("wrong", [NAN, INF, -INF])
def test_points_that_are_not_finite(wrong: float) -> None:
    loss = bowl(3.0, points=11).loss
    loss[0, :3] = wrong
    assert check_grid(loss, 1.0, axes=np.ndim(loss)) == ["3 of 121 points are not finite"]
    loss = bowl(3.0, points=11, dims=1).loss
    loss[-2:] = wrong
    assert check_grid(loss, 1.0, axes=np.ndim(loss)) == ["2 of 11 points are not finite"]


def test_numbers_at_the_end_of_their_range() -> None:
    loss = 1e308 * bowl(0.5).loss
    loss[0, :3] = INF, -INF, INF
    assert check_grid(loss, 1e308, axes=2)[0] == "3 of 441 points are not finite"


def test_too_few_finite_points() -> None:
    loss = np.full((5, 5), NAN)
    loss[2, 2] = 1
    assert check_grid(loss, 1.0, axes=np.ndim(loss)) == [
        "24 of 25 points are not finite",
        "too few points are finite to see anything; use a smaller span",
    ]


@pytest.mark.parametrize(("rise", "found"), [(0.9e-3, True), (1.1e-3, False)])
@pytest.mark.parametrize("centre", [2.0, 1e-3])
def test_a_span_that_is_too_narrow(rise: float, centre: float, found: bool) -> None:
    loss = centre * (1 + rise * np.add.outer(UNIT**2, UNIT**2) / 2)
    expected = [f"the loss changes by {rise * centre:.1e} only; use a larger span"]
    assert check_grid(loss, centre, axes=np.ndim(loss)) == (expected if found else [])


@pytest.mark.parametrize(("points", "found"), [(11, True), (9, False)])
def test_a_basin_that_is_too_small(points: int, found: bool) -> None:
    loss = np.ones((points, points))
    loss[points // 2, points // 2] = 0
    message = "the basin covers less than 1 % of the points; use a smaller span"
    assert (message in check_grid(loss, 0.0, axes=np.ndim(loss))) == found


def waves(count: float) -> np.ndarray:
    return np.sin(np.pi * count * UNIT)


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (waves(6), True),  # four points a wave
        (waves(1), False),
        (np.add.outer(waves(6), 0 * UNIT), True),
        (np.add.outer(0 * UNIT, waves(6)), True),
        (np.add.outer(waves(1), waves(1)), False),
        (np.exp(2 * waves(6)), True),  # a wide range is judged as it is drawn, in the logarithm
        (np.exp(5 * np.abs(UNIT)), False),
    ],
)
def test_a_grid_that_is_too_coarse(loss: np.ndarray, found: bool) -> None:
    findings = check_grid(loss, 1.0, axes=np.ndim(loss))
    if found:
        amount = "a factor of 7.4" if (loss > 0).all() else "1"
        assert only(findings, f"the mean of their neighbours by up to {amount};")
    else:
        assert findings == []
