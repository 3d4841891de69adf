"""Planes: where their grids lie, what their axes are, and where other weights are found on them."""

from __future__ import annotations

import dataclasses
from typing import Any

import cases
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparsediag import Mask, Plane, Problem, plane
from sparsediag.core.rng import stream
from sparsediag.surfaces import directions
from sparsediag.surfaces import plane as planes
from sparsediag.surfaces.directions import Norm

every_case = pytest.mark.parametrize("name", cases.CASES)
NORMS: tuple[Norm, ...] = ("filter", "layer", "weight", "none")


def gaussian(count: int, size: int) -> Tensor:
    return torch.randn(count, size, generator=stream("test", size), dtype=torch.float64)


def made(vectors: Tensor, problem: Problem | None = None, **about: Any) -> Plane:
    labels = [str(i) for i in range(len(vectors))]
    return planes.plane_from_vectors(problem or cases.linear_regression(), vectors, labels, **about)


# its grid


def test_the_first_index_of_a_grid_goes_along_the_first_direction() -> None:
    where = {"middle": np.array([0.0, 10.0]), "half": np.array([1.0, 2.0])}
    on = dataclasses.replace(made(gaussian(2, 15)), **where)
    axes, grid = on.grid(3, 0.5)
    assert axes.tolist() == [[-0.5, 0, 0.5], [9, 10, 11]]
    assert grid.shape == (3, 3, 2)
    for i, j in np.ndindex(3, 3):
        assert grid[i, j].tolist() == [axes[0, i], axes[1, j]]


def test_the_grid_of_a_line() -> None:
    axes, grid = made(gaussian(1, 15)).grid(5, 2)
    assert axes.tolist() == [[-2, -1, 0, 1, 2]]
    assert grid.tolist() == [[-2], [-1], [0], [1], [2]]


def test_lines_go_along_one_direction_each() -> None:
    on = plane(cases.tanh_mlp(), dims=1, lines=4)
    axes, grid = on.grid(3, 2)
    assert axes.tolist() == [[-2, 0, 2]]
    assert grid.shape == (4, 3, 4)
    for line, point in np.ndindex(4, 3):
        assert grid[line, point].tolist() == [axes[0, point] * (k == line) for k in range(4)]


# its axes


def test_gram_holds_the_cosines() -> None:
    vectors = torch.zeros(2, 15, dtype=torch.float64)
    vectors[0, 0], vectors[1, :2] = 3, torch.tensor([-1, 1])
    assert made(vectors).gram == pytest.approx(np.array([[1, -(0.5**0.5)], [-(0.5**0.5), 1]]))


def test_orthogonal_turns_the_second_axis_alone() -> None:
    given = made(gaussian(2, 15), unit="yards", doubts=["doubt"])
    on = given.orthogonal()
    assert on.gram == pytest.approx(np.eye(2), abs=1e-14)
    assert torch.equal(on.directions[0], given.directions[0])
    torch.testing.assert_close(on.directions.norm(dim=1), given.directions.norm(dim=1))
    assert (on.unit, on.doubts, on.labels) == ("yards", ["doubt"], given.labels)


@every_case
def test_curvature_is_that_of_the_dense_hessian(name: str) -> None:
    problem, hessian = cases.CASES[name](), cases.hessian_of(name)
    on = plane(problem, norm="none", seed=3)
    units = [d / d.norm() for d in on.directions]
    expected = [float(u @ hessian @ u) for u in units]
    assert on.curvature() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["residual_net", "masked_cnn"])
def test_random_axes_have_seeds_that_follow_each_other(name: str) -> None:
    problem = cases.CASES[name]()
    on = plane(problem, norm="layer", vectors=True, seed=5)
    for d, seed in zip(on.directions, (5, 6), strict=True):
        expected = directions.random_direction(problem, norm="layer", vectors=True, seed=seed)
        assert torch.equal(d, expected)
    assert (on.labels, on.unit) == (["random 5", "random 6"], "layer norms")
    lines = plane(problem, dims=1, lines=3, seed=5)
    drawn = [directions.random_direction(problem, seed=5 + i) for i in range(3)]
    assert torch.equal(lines.directions, torch.stack(drawn))
    assert (lines.labels, lines.unit) == (["3 random lines"], "filter norms")


@pytest.mark.parametrize("norm", NORMS)
@every_case
def test_the_gradient_axis_goes_uphill(name: str, norm: Norm) -> None:
    problem = cases.CASES[name]()
    uphill = cases.dense_gradient(problem)
    on = plane(problem, "gradient", norm=norm, seed=7)
    first, second = on.directions
    assert first @ uphill > 0
    step = 1e-6 / float(first.norm())
    rise = problem.value(problem.weights + step * first) - problem.value()
    assert rise == pytest.approx(step * float(first @ uphill), rel=1e-3, abs=1e-12)
    assert torch.equal(second, directions.random_direction(problem, norm=norm, seed=8))
    assert on.labels == ["gradient", "random 8"]
    if norm == "none":
        torch.testing.assert_close(first, uphill)
    line = plane(problem, "gradient", dims=1, norm=norm)
    assert torch.equal(line.directions[0], first)


@every_case
def test_eigenvector_axes_are_those_of_the_dense_hessian(name: str) -> None:
    problem, hessian = cases.CASES[name](), cases.hessian_of(name)
    on = plane(problem, "eigenvectors")
    values = torch.linalg.eigvalsh(hessian).flip(0)[:2]
    torch.testing.assert_close(on.directions @ on.directions.T, torch.eye(2).double())
    torch.testing.assert_close(
        on.directions @ hessian @ on.directions.T, values.diag(), rtol=1e-4, atol=1e-4
    )
    rest = on.directions @ hessian - values[:, None] * on.directions
    assert (rest.norm(dim=1) <= 2e-3 * values.abs()).all()
    assert on.curvature() == pytest.approx(values.numpy(), rel=1e-4)
    assert (on.labels, on.unit) == (["eigenvector 1", "eigenvector 2"], "distance")


def test_axes_without_a_norm_are_doubted() -> None:
    problem = cases.tanh_mlp()
    on = plane(problem, norm="none")
    assert on.doubts == [
        "the axes are not normalised: do not compare networks of different weight norms"
    ]
    assert on.unit == "length of the direction"
    assert plane(problem).doubts == []


# directions of one's own


def test_directions_by_name() -> None:
    problem = cases.tanh_mlp()
    g = {n: torch.randn(s, generator=stream("test", 1)) for n, s in problem.live.shapes.items()}
    on = planes.plane_from_tensors(problem, [g, {"2.bias": torch.ones(5)}])
    assert on.directions.dtype == torch.float64
    first, second = (problem.split(d) for d in on.directions)
    for n, tensor in first.items():
        assert torch.equal(tensor, g[n].double())
        assert torch.equal(second[n], torch.full_like(tensor, n == "2.bias"))
    assert (on.labels, list(on.doubts)) == (["direction 1", "direction 2"], [])
    axes, _ = on.grid(3, 1)
    assert axes.tolist() == [[-1, 0, 1]] * 2


def test_what_would_revive_a_weight_is_cut_off_and_said() -> None:
    net = nn.Linear(2, 1)
    mask = Mask({"weight": torch.tensor([[True, False]])})
    problem = Problem(net, [(torch.ones(1, 2), torch.zeros(1, 1))], loss=nn.MSELoss(), mask=mask)
    on = planes.plane_from_tensors(problem, [{"weight": torch.tensor([[1.0, 3.0]])}])
    assert problem.split(on.directions[0])["weight"].tolist() == [[1, 0]]
    assert on.doubts == ["dead coordinates of the directions were cut, 90% of their square"]
    assert planes.plane_from_tensors(problem, [{"weight": torch.tensor([[1.0, 0.0]])}]).doubts == []


def test_directions_of_another_net_are_refused() -> None:
    problem = cases.tanh_mlp()
    with pytest.raises(ValueError, match=r"unknown trainable weight '2.bais'; did you mean"):
        planes.plane_from_tensors(problem, [{"2.bais": torch.ones(5)}])
    with pytest.raises(ValueError, match=r"the tensor for '2.bias' is \(4,\), the weight is"):
        planes.plane_from_tensors(problem, [{"2.bias": torch.ones(4)}])


# what is refused


def test_a_direction_that_is_zero_everywhere() -> None:
    problem = cases.tanh_mlp()
    problem = Problem(
        problem.net,
        problem.batches,
        mask=Mask(
            {
                n: torch.zeros_like(w).bool()
                for n, w in problem.net.named_parameters()
                if w.dim() > 1
            }
        ),
    )
    zero = {"0.bias": torch.zeros(6)}
    for make in (
        lambda: plane(problem),
        lambda: planes.plane_from_tensors(problem, [{"0.bias": torch.ones(6)}, zero]),
    ):
        with pytest.raises(ValueError, match=r"a direction is zero everywhere: .* norm='none'"):
            make()
    assert plane(problem, norm="none").directions.shape == (2, 14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": "gradeint"}, "unknown kind of axes 'gradeint'; did you mean 'gradient'"),
        ({"norm": "filtr"}, "unknown norm 'filtr'; did you mean 'filter'"),
        ({"dims": 3}, r"dims=3: need 1 \(a line\) or 2 \(a plane\)"),
        ({"dims": 0}, "dims=0"),
        ({"lines": 0, "dims": 1}, "lines=0: need 1, or more of them with dims=1"),
        ({"lines": 2}, "lines=2"),
        ({"lines": 2, "dims": 1, "axes": "gradient"}, "lines=2.* axes='random'"),
        ({"lines": 2, "dims": 1, "axes": "eigenvectors"}, "lines=2"),
    ],
)
def test_a_plane_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        plane(cases.tanh_mlp(), **options)


# where other weights are


@pytest.mark.parametrize("lengths", [(1.0, 1.0), (1e-3, 1e3)])
@every_case
def test_weights_are_found_and_how_far_they_lie_off(
    name: str, lengths: tuple[float, float]
) -> None:
    problem = cases.CASES[name]()
    one, two, other = gaussian(3, problem.size)
    d = torch.stack([one, one + 0.2 * two])
    d = d / d.norm(dim=1, keepdim=True) * torch.tensor(lengths)[:, None]
    on = made(d, problem)
    place = np.array([0.3, -2.0]) / lengths
    weights = problem.weights + torch.from_numpy(place) @ d
    at, away = on.project(weights)
    assert at == pytest.approx(place, rel=1e-8)
    assert away == pytest.approx(0, abs=1e-9)
    upright = directions.orthogonalise(torch.stack([*d, other]))[2]
    at, away = on.project(weights + 0.7 * upright / upright.norm())
    assert at == pytest.approx(place, rel=1e-8)
    assert away == pytest.approx(0.7)


def test_stops_are_found_in_order() -> None:
    problem = cases.tanh_mlp()
    d = directions.orthogonalise(gaussian(3, problem.size))
    stops = []
    for move in (d[0], 2 * d[1] - d[0], d[2]):
        net = cases.tanh_mlp().net
        with torch.no_grad():
            for n, step in problem.split(move).items():
                net.get_parameter(n).add_(step)
        stops.append(Problem(net, problem.batches))
    passed = made(d[:2], problem, stops=stops, names=["a", "b", "c"]).project_stops()
    at, away = passed["places"], passed["away"]
    assert at == pytest.approx(np.array([[1, 0], [-1, 2], [0, 0]]), abs=1e-12)
    assert away == pytest.approx([0, 0, float(d[2].norm())], abs=1e-12)


def test_without_stops_there_are_none() -> None:
    passed = made(gaussian(2, 15)).project_stops()
    at, away = passed["places"], passed["away"]
    assert (at.shape, away.shape) == ((0, 2), (0,))
