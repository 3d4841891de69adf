"""Between nets: what joins their masks, and that each is found where it should be."""

from __future__ import annotations

import copy

import cases
import numpy as np
import pytest
import torch
from torch import Tensor

from sparsediag import Mask, Problem, interpolate, pca_plane
from sparsediag.core.rng import stream
from sparsediag.surfaces import directions
from sparsediag.surfaces.evaluate import LossEvaluator
from sparsediag.surfaces.interpolation import Masks, common_coordinates

JOINS: tuple[Masks, ...] = ("union", "intersection")
KINDS: dict[str, tuple[float | None, ...]] = {  # densities of three nets
    "dense": (None, None, None),
    "masked": (0.4, 0.6, 0.5),
    "the first dense": (None, 0.5, 0.4),
    "the last dense": (0.5, 0.4, None),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def nets(kind: str = "dense", case: str = "tanh_mlp") -> list[Problem]:
    """Three nets of other weights and masks; what their masks kill is not zero in them."""
    problems = []
    for seed, density in enumerate(KINDS[kind]):
        problem = cases.CASES[case]()
        problem = problem.replace(mask=None)
        net = copy.deepcopy(problem.net)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn(p.shape, generator=stream("test", seed)), alpha=0.5)
        mask = None if density is None else cases.coins(net, density, seed)
        problems.append(problem.replace(net=net, mask=mask))
    return problems


def moved(problem: Problem, vector: Tensor) -> Problem:
    net = copy.deepcopy(problem.net)
    with torch.no_grad():
        for n, step in problem.split(vector).items():
            net.get_parameter(n).add_(step)
    return problem.replace(net=net)


def alive(problem: Problem) -> dict[str, Tensor]:
    mask = problem.mask or {}
    return {n: mask.get(n, torch.ones(s).bool()) for n, s in problem.live.shapes.items()}


# common coordinates


@pytest.mark.parametrize("masks", JOINS)
@every_kind
def test_what_moves_is_live_in_any_or_in_all(kind: str, masks: Masks) -> None:
    problems = nets(kind)
    common, weights = common_coordinates(problems, masks=masks)
    lives = [alive(p) for p in problems]
    some = {n: torch.stack([live[n] for live in lives]) for n in lives[0]}
    expected = {n: m.any(0) if masks == "union" else m.all(0) for n, m in some.items()}
    ones = common.split(torch.ones(common.size))
    for n, live in expected.items():
        assert torch.equal(ones[n] != 0, live)
    for problem, live, own in zip(problems, lives, weights, strict=True):
        for n, tensor in common.split(own).items():
            kept = problem.net.get_parameter(n).detach() * live[n] * expected[n]
            assert torch.equal(tensor, kept)


@every_kind
def test_the_loss_in_the_union_is_that_of_the_first_net(kind: str) -> None:
    first, *others = nets(kind)
    common, weights = common_coordinates([first, *others])
    assert common.value() == pytest.approx(first.value(), rel=1e-14)
    assert torch.equal(common.weights, weights[0])
    for problem, own in zip(others, weights[1:], strict=True):
        assert common.value(own) == pytest.approx(problem.value(), rel=1e-14)


def test_the_loss_in_the_intersection_is_that_of_the_first_net_without_the_rest() -> None:
    problems = nets("masked")
    common, weights = common_coordinates(problems, masks="intersection")
    mask = problems[0].mask
    for problem in problems[1:]:
        assert mask is not None
        assert problem.mask is not None
        mask = mask & problem.mask
    assert common.mask == mask
    assert common.value() == problems[0].replace(mask=mask).value()
    assert torch.equal(common.weights, weights[0])


def test_one_mask_in_common_stays() -> None:
    problems = nets("dense")
    mask = cases.coins(problems[0].net, 0.5, 9)
    common, _ = common_coordinates([p.replace(mask=mask) for p in problems])
    assert common.mask == mask


def test_masks_of_different_layers() -> None:
    problems = nets("dense")[:2]
    own = [
        p.replace(mask=Mask({n: torch.zeros_like(p.net.get_parameter(n)).bool()}))
        for p, n in zip(problems, ("0.weight", "2.weight"), strict=True)
    ]
    assert common_coordinates(own)[0].size == problems[0].size
    assert common_coordinates(own, masks="intersection")[0].size == problems[0].size - 24 - 30


@pytest.mark.parametrize("masks", JOINS)
def test_frozen_weights_stay_those_of_the_first_net(masks: Masks) -> None:
    problems = nets("masked", "frozen_parameter")
    common, _ = common_coordinates(problems, masks=masks)
    assert list(common.live.shapes) == ["0.bias", "2.weight", "4.weight", "4.bias"]
    if masks == "union":
        assert common.value() == pytest.approx(problems[0].value(), rel=1e-14)


def test_the_nets_are_left_alone() -> None:
    problems = nets("masked")
    before = [copy.deepcopy(p.net.state_dict()) for p in problems]
    common_coordinates(problems)
    for problem, kept in zip(problems, before, strict=True):
        assert all(torch.equal(t, kept[n]) for n, t in problem.net.state_dict().items())


def test_nets_that_do_not_fit_are_refused() -> None:
    for other in (cases.relu_cnn(), cases.frozen_parameter()):
        for join in (
            lambda pair: common_coordinates(pair),
            interpolate,
            lambda pair: pca_plane(pair, "ab", dims=1),
        ):
            with pytest.raises(ValueError, match="differ in their weights"):
                join([cases.tanh_mlp(), other])


def test_an_unknown_join_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown way to join masks 'onion'; did you mean 'union'"):
        common_coordinates(nets(), masks="onion")  # type: ignore[arg-type]


# through two or three nets


@every_kind
@pytest.mark.parametrize("count", [2, 3])
def test_the_nets_lie_at_zero_and_at_one(kind: str, count: int) -> None:
    problems = nets(kind)[:count]
    on = interpolate(problems, names="abc"[:count])
    corners = np.eye(count)[:, 1:]
    passed = on.project_stops()
    at, away = passed["places"], passed["away"]
    assert at == pytest.approx(corners, abs=1e-12)
    assert away == pytest.approx(0, abs=1e-9)
    sweep = LossEvaluator(on)
    for corner, problem in zip(corners, problems, strict=True):
        assert sweep(corner)[0] == pytest.approx(problem.value(), rel=1e-12)
    assert on.labels == ["towards b", "towards c"][: count - 1]
    assert list(on.names) == [*"abc"][:count]
    assert list(on.doubts) == []


@pytest.mark.parametrize("count", [2, 3])
def test_the_picture_goes_beyond_the_nets_on_every_side(count: int) -> None:
    axes, _ = interpolate(nets()[:count]).grid(5, 1)
    assert axes == pytest.approx(np.tile([-0.5, 0, 0.5, 1, 1.5], (count - 1, 1)))


def test_nets_without_names_are_counted() -> None:
    on = interpolate(nets())
    assert (list(on.names), on.labels[1]) == (
        ["network 1", "network 2", "network 3"],
        "towards network 3",
    )


def test_the_intersection_says_what_it_drops() -> None:
    problems = nets("masked")
    on = interpolate(problems, masks="intersection")
    most = max(p.size for p in problems) - on.problem.size
    assert on.doubts == [
        f"weights outside the intersection of the masks were dropped, up to {most}"
    ]
    assert on.project_stops()["places"] == pytest.approx(np.eye(3)[:, 1:], abs=1e-12)
    assert list(interpolate(nets("dense"), masks="intersection").doubts) == []


@pytest.mark.parametrize("count", [0, 1, 4])
def test_other_numbers_of_nets_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} networks"):
        interpolate((nets() + nets())[:count])


def test_nets_on_one_line_are_refused() -> None:
    one, other, _ = nets()
    step = other.weights - one.weights
    for problems in (
        [one, one],
        [one, one, other],
        [one, other, other],
        [one, other, moved(one, 3 * step)],
    ):
        with pytest.raises(ValueError, match="on one line"):
            interpolate(problems)


# a run


def run(places: list[tuple[float, float]]) -> tuple[list[Problem], Tensor]:
    """Checkpoints at these places of a plane through the last, and its axes."""
    last = cases.tanh_mlp()
    g = torch.randn(2, last.size, generator=stream("test", 4), dtype=torch.float64)
    axes = directions.orthogonalise(g)
    axes = axes / axes.norm(dim=1, keepdim=True)
    away = torch.tensor(places, dtype=torch.float64)
    return [moved(last, place @ axes) for place in away], axes


def test_a_run_is_found_in_its_plane() -> None:
    problems, axes = run([(0, 3), (4, 0), (0, 0)])
    on = pca_plane(problems, ["a", "b", "c"])
    turned = on.directions @ axes.T
    assert turned.abs().numpy() == pytest.approx(np.eye(2), abs=1e-12)
    assert on.labels == ["component 1 (64%)", "component 2 (36%)"]
    passed = on.project_stops()
    at, away = passed["places"], passed["away"]
    signs = turned.diagonal().sign().numpy()
    assert at * signs == pytest.approx(np.array([[0, 3], [4, 0], [0, 0]]), abs=1e-12)
    assert away == pytest.approx(0, abs=1e-12)
    assert on.problem.value() == problems[-1].value()
    assert list(on.names) == ["a", "b", "c"]


def test_components_are_those_of_the_steps_from_the_last() -> None:
    places = [(5.0, 1.0), (3.0, 2.0), (2.0, -1.0), (1.0, 1.0), (0.0, 0.0)]
    problems, axes = run(places)
    on = pca_plane(problems, "abcde")
    values, vectors = np.linalg.eigh(np.array(places).T @ places)
    assert on.directions.shape == (2, problems[0].size)
    for d, v in zip(on.directions, vectors.T[::-1], strict=True):
        assert abs(float(d @ (torch.from_numpy(v) @ axes))) == pytest.approx(1)
    shares = values[::-1] / values.sum()
    assert on.labels == [f"component {i + 1} ({s:.0%})" for i, s in enumerate(shares)]


@pytest.mark.parametrize(
    "places",
    [
        [(5.0, 1.0), (3.0, 2.0), (2.0, -1.0), (1.0, 1.0), (0.0, 0.0)],
        [(8.0, 0.1), (4.0, -0.1), (2.0, 0.0), (0.0, 0.0)],
        [(2.0, 0.0), (1.0, 0.0), (0.0, 0.0)],
    ],
)
def test_the_whole_run_is_in_the_picture(places: list[tuple[float, float]]) -> None:
    problems, _ = run(places)
    on = pca_plane(problems, [str(i) for i in range(len(places))])
    (low, high), at = on.grid(9, 1)[0][:, [0, -1]].T, on.project_stops()["places"]
    margin = 0.08 * np.ptp(at, axis=0)
    assert (low <= at.min(axis=0) - margin).all()
    assert (high >= at.max(axis=0) + margin).all()
    assert (high - low).min() >= (high - low).max() / 5 - 1e-12


@pytest.mark.parametrize("dims", [1, 2])
def test_a_run_of_nets_with_other_masks(dims: int) -> None:
    problems = nets("masked")
    on = pca_plane(problems, "abc", dims=dims)
    assert on.directions.shape == (dims, on.problem.size)
    assert on.problem.value() == pytest.approx(problems[-1].value(), rel=1e-14)
    passed = on.project_stops()
    at, away = passed["places"], passed["away"]
    assert at[-1] == pytest.approx([0] * dims, abs=1e-12)
    assert away[-1] == pytest.approx(0, abs=1e-12)
    if dims == 2:
        assert away == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("count", "dims"), [(2, 2), (1, 2), (1, 1)])
def test_too_few_checkpoints(count: int, dims: int) -> None:
    message = f"got {count} checkpoints; need {dims + 1} for {dims} components"
    with pytest.raises(ValueError, match=message):
        pca_plane(nets()[:count], "ab"[:count], dims=dims)


def test_a_run_that_stands_still_is_refused() -> None:
    with pytest.raises(ValueError, match="all equal"):
        pca_plane(run([(0, 0)] * 3)[0], "abc")
