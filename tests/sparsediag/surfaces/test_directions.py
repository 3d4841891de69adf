"""Directions: as long as the filters they go through, and zero wherever a landscape must not go."""

from __future__ import annotations

import itertools

import cases
import pytest
import torch
from torch import Tensor, nn

from sparsediag import Mask, Problem
from sparsediag.core.filter_norms import filter_norms
from sparsediag.core.rng import stream
from sparsediag.surfaces.directions import Norm, normalise, orthogonalise, random_direction

NORMS: tuple[Norm, ...] = ("filter", "layer", "weight", "none")
every_case = pytest.mark.parametrize("name", cases.CASES)


def _lengths(tensor: Tensor) -> Tensor:
    return tensor.flatten(1).norm(dim=1)


def _parts(problem: Problem, vector: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> (direction, weight)."""
    drawn, weights = problem.split(vector), problem.split(problem.weights)
    return {n: (drawn[n], weights[n]) for n in weights}


def _again(problem: Problem, mask: Mask | None) -> Problem:
    return Problem(problem.net, problem.batches, loss=problem.loss, mask=mask)


@every_case
def test_each_filter_is_as_long_as_the_nets_own(name: str) -> None:
    problem = cases.CASES[name]()
    for d, w in _parts(problem, random_direction(problem)).values():
        if w.dim() > 1:
            own = _lengths(w)
            torch.testing.assert_close(_lengths(d), own, rtol=1e-12, atol=0)
            assert own.max() > 0


@pytest.mark.parametrize("norm", ["filter", "layer", "weight"])
@every_case
def test_biases_and_batch_norm_stay(name: str, norm: Norm) -> None:
    problem = cases.CASES[name]()
    parts = _parts(problem, random_direction(problem, norm=norm)).values()
    assert all((d == 0).all() for d, _ in parts if d.dim() < 2)


def test_without_a_norm_it_is_the_gaussian_itself() -> None:
    problem = cases.relu_cnn()
    g = stream("direction", 5)
    drawn = {n: torch.randn(s, generator=g) for n, s in problem.live.shapes.items()}
    expected = problem.join(drawn).double()
    assert torch.equal(random_direction(problem, norm="none", seed=5), expected)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", cases.MASKED)
def test_it_is_zero_off_the_mask(name: str, norm: Norm) -> None:
    problem = cases.CASES[name]()
    d = problem.split(random_direction(problem, norm=norm))
    for n, alive in problem.mask.items():
        assert (d[n][~alive] == 0).all()
        assert (d[n][alive] != 0).any()


@pytest.mark.parametrize("norm", ["filter", "layer", "weight"])
def test_an_empty_filter_stays_empty(norm: Norm) -> None:
    net = nn.Linear(3, 2)
    alive = torch.tensor([[True, True, False], [False, False, False]])
    problem = Problem(net, [(torch.ones(2, 3), torch.tensor([0, 1]))], mask=Mask({"weight": alive}))
    d = problem.split(random_direction(problem, norm=norm))["weight"]
    assert d.isfinite().all()
    assert (d[~alive] == 0).all()
    assert (d[alive] != 0).all()


def test_a_filter_of_zeros_that_is_alive_stays_where_it_is() -> None:
    problem = cases.softmax_regression()
    with torch.no_grad():
        problem.net.weight[1] = 0
    problem = _again(problem, None)
    d = problem.split(random_direction(problem))["weight"]
    assert (_lengths(d) > 0).tolist() == [True, False, True, True]


def test_an_empty_layer_stays_empty() -> None:
    problem = cases.tanh_mlp()
    problem = _again(problem, Mask({"2.weight": torch.zeros(5, 6, dtype=torch.bool)}))
    for norm in ("filter", "layer", "weight"):
        d = problem.split(random_direction(problem, norm=norm))
        assert (d["2.weight"] == 0).all()
        assert d["4.weight"].norm() > 0


def test_nets_that_differ_in_mask_or_weights_get_the_same_gaussian() -> None:
    dense, sparse = cases.tanh_mlp(), cases.masked_mlp()
    gaussian = dense.split(random_direction(dense, norm="none", seed=2))
    masked = sparse.split(random_direction(sparse, norm="none", seed=2))
    for n, alive in sparse.mask.items():
        assert torch.equal(masked[n], gaussian[n] * alive)
    with torch.no_grad():
        dense.net[0].weight.mul_(3)
    moved = _again(dense, None)
    assert torch.equal(random_direction(moved, norm="none", seed=2), dense.join(gaussian))
    before, after = (p.split(random_direction(p, seed=2))["0.weight"] for p in (dense, moved))
    torch.testing.assert_close(after, 3 * before)


@pytest.mark.parametrize("norm", NORMS)
def test_the_seed_decides(norm: Norm) -> None:
    problem = cases.relu_cnn()
    state = torch.random.get_rng_state()
    one, same, other = (random_direction(problem, norm=norm, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert abs(torch.cosine_similarity(one, other, dim=0)) < 0.5
    assert torch.equal(torch.random.get_rng_state(), state)


def test_it_has_the_type_of_the_weights() -> None:
    problem = Problem(nn.Linear(3, 2), [(torch.ones(2, 3), torch.tensor([0, 1]))])
    assert random_direction(problem).dtype == torch.float32
    assert random_direction(cases.tanh_mlp()).dtype == torch.float64


# the lengths of filters


@every_case
def test_lengths_are_the_norms_of_the_filters(name: str) -> None:
    problem = cases.CASES[name]()
    came = filter_norms(problem)
    assert came.shape == (problem.size,)
    assert came.dtype == problem.weights.dtype
    for n, (d, w) in _parts(problem, came).items():
        if w.dim() < 2:
            assert (d == 0).all()
            continue
        alive = problem.mask[n] if problem.mask and n in problem.mask else torch.ones_like(d)
        expected = torch.stack([row.square().sum().sqrt().expand_as(row) for row in w]) * alive
        torch.testing.assert_close(d, expected, rtol=1e-14, atol=0)


def test_dead_weights_do_not_lengthen_a_filter() -> None:
    net = nn.Linear(3, 1, bias=False)
    net.weight.data.copy_(torch.tensor([[3.0, 100.0, 4.0]]))
    mask = Mask({"weight": torch.tensor([[True, False, True]])})
    problem = Problem(net, [(torch.ones(2, 3), torch.zeros(2, 1))], loss=nn.MSELoss(), mask=mask)
    assert filter_norms(problem).tolist() == [5, 5]


def test_lengths_of_some_of_the_weights() -> None:
    problem = cases.relu_cnn()
    whole = problem.split(filter_norms(problem))
    part = problem.view(params="3.*")
    assert torch.equal(
        filter_norms(part), torch.cat([whole[n].flatten() for n in part.live.shapes])
    )
    assert filter_norms(part).norm() > 0


def test_lengths_grow_with_the_weights() -> None:
    problem = cases.masked_cnn()
    before = filter_norms(problem)
    with torch.no_grad():
        for p in problem.net.parameters():
            p.mul_(2)
    torch.testing.assert_close(filter_norms(_again(problem, problem.mask)), 2 * before)


# the published rule, by hand

WEIGHT = [[3.0, 4.0], [5.0, -12.0], [0.0, 0.0]]  # filters of length 5, 13 and 0
BIAS = [1.0, 2.0, 2.0]  # of length 3
DRAWN, DRAWN_BIAS = [[0.0, 2.0], [3.0, -4.0], [1.0, 1.0]], [4.0, -4.0, 2.0]
LAYER = (194 / 31) ** 0.5  # the layer's length over that of the direction
RULES: dict[str, tuple[list[list[float]], list[float]]] = {
    "filter": ([[0, 5], [7.8, -10.4], [0, 0]], [2, -2, 1]),
    "layer": ([[x * LAYER for x in row] for row in DRAWN], [2, -2, 1]),
    "weight": ([[0, 8], [15, -48], [0, 0]], [4, -8, 4]),
    "none": (DRAWN, DRAWN_BIAS),
}


def _by_hand(dead: tuple[int, int] | None = None) -> tuple[Problem, Tensor]:
    """A convolution of three filters of two weights, and a direction."""
    net = nn.Conv2d(1, 3, (1, 2)).double()
    net.weight.data.copy_(torch.tensor(WEIGHT).view(3, 1, 1, 2))
    net.bias.data.copy_(torch.tensor(BIAS))
    mask = None
    if dead:
        alive = torch.ones(3, 1, 1, 2, dtype=torch.bool)
        alive[dead[0], 0, 0, dead[1]] = False
        mask = Mask({"weight": alive})
    x = torch.ones(2, 1, 1, 2, dtype=torch.float64)
    problem = Problem(net, [(x, x)], loss=lambda outputs, _: outputs.mean(), mask=mask)
    drawn = {"weight": torch.tensor(DRAWN).view(3, 1, 1, 2), "bias": torch.tensor(DRAWN_BIAS)}
    return problem, problem.join({name: t.double() for name, t in drawn.items()})


@pytest.mark.parametrize("vectors", [None, True, False])
@pytest.mark.parametrize("norm", RULES)
def test_the_rules_by_hand(norm: Norm, vectors: bool | None) -> None:
    problem, drawn = _by_hand()
    d = problem.split(normalise(problem, drawn, norm=norm, vectors=vectors))
    rows, bias = RULES[norm]
    moves = norm == "none" if vectors is None else vectors
    torch.testing.assert_close(d["weight"].view(3, 2), torch.tensor(rows).double())
    torch.testing.assert_close(d["bias"], torch.tensor(bias).double() * moves)


@pytest.mark.parametrize(
    ("norm", "rows"),
    [
        ("filter", [[0, 5], [5, 0], [0, 0]]),  # one weight of 5 is left of 5 and -12
        ("layer", [[x * (50 / 15) ** 0.5 for x in row] for row in ([0, 2], [3, 0], [1, 1])]),
        ("weight", [[0, 8], [15, 0], [0, 0]]),
        ("none", [[0, 2], [3, 0], [1, 1]]),
    ],
)
def test_the_mask_comes_before_the_norm(norm: Norm, rows: list[list[float]]) -> None:
    problem, drawn = _by_hand(dead=(1, 1))
    d = problem.split(normalise(problem, drawn, norm=norm))["weight"]
    torch.testing.assert_close(d.view(3, 2), torch.tensor(rows).double())


@pytest.mark.parametrize("norm", RULES)
@every_case
def test_a_norm_does_not_turn_any_weights_direction(name: str, norm: Norm) -> None:
    problem = cases.CASES[name]()
    drawn = random_direction(problem, norm="none", seed=3)
    d = normalise(problem, drawn, norm=norm, vectors=True)
    assert (d * drawn >= 0).all()
    assert d @ drawn > 0


@pytest.mark.parametrize("norm", ["filter", "layer", "weight"])
@every_case
def test_the_length_of_a_direction_does_not_matter(name: str, norm: Norm) -> None:
    problem = cases.CASES[name]()
    drawn = random_direction(problem, norm="none")
    one, other = (normalise(problem, s * drawn, norm=norm, vectors=True) for s in (1, 1e6))
    if norm == "weight":
        one = 1e6 * one
    torch.testing.assert_close(other, one, rtol=1e-12, atol=0)


# directions that stand upright on each other


def _several(count: int) -> Tensor:
    return torch.randn(count, 9, generator=stream("test", count), dtype=torch.float64)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_orthogonal_directions_keep_their_lengths_and_their_space(count: int) -> None:
    given = _several(count) * 10.0 ** torch.arange(count)[:, None]
    made = orthogonalise(given)
    torch.testing.assert_close(made.norm(dim=1), given.norm(dim=1), rtol=1e-12, atol=0)
    assert torch.equal(made[0], given[0])
    units = made / made.norm(dim=1, keepdim=True)
    torch.testing.assert_close(units @ units.T, torch.eye(count).double(), rtol=0, atol=1e-13)
    torch.testing.assert_close(given @ units.T @ units, given, rtol=1e-12, atol=1e-9)
    assert ((made * given).sum(dim=1) > 0).all()


def test_nearly_parallel_directions_come_out_orthogonal() -> None:
    one, other = _several(2)
    made = orthogonalise(torch.stack([one, one + 1e-3 * other]))
    assert abs(torch.cosine_similarity(made[0], made[1], dim=0)) < 1e-14


def test_a_direction_in_the_plane_of_the_others_is_refused() -> None:
    one, other = _several(2)
    for last in (2 * one - other, 0 * one):
        with pytest.raises(ValueError, match="combination of the others"):
            orthogonalise(torch.stack([one, other, last]))


# weights that lie the other way


def test_filters_of_a_transposed_convolution_are_those_of_its_outputs() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose1d(4, 6, 2, groups=2), nn.Flatten(), nn.Linear(12, 2))
    problem = Problem(net.double(), [(torch.ones(2, 4, 1).double(), torch.tensor([0, 1]))])
    weight = net[0].weight.detach()
    d, came = (
        problem.split(v)["0.weight"] for v in (random_direction(problem), filter_norms(problem))
    )
    for group, out in itertools.product(range(2), range(3)):
        own, of, length = (t[2 * group : 2 * group + 2, out] for t in (d, weight, came))
        torch.testing.assert_close(own.norm(), of.norm())
        torch.testing.assert_close(length, of.norm().expand_as(of))
