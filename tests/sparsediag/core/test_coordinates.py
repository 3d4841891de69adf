"""Live coordinates: names to vectors and back, without a trace of the dead."""

from __future__ import annotations

import cases
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sparsediag import Mask
from sparsediag.core.coordinates import LiveCoordinates

MASK = Mask({"0.weight": torch.tensor([[True, False, True], [False, False, True]])})

every_case = pytest.mark.parametrize("name", cases.CASES)


def _vector(size: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=g, dtype=torch.float64)


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


# back and forth


@every_case
def test_join_undoes_split_to_the_bit(name: str) -> None:
    live = cases.CASES[name]().live
    v = _vector(live.size)
    assert torch.equal(live.join(live.split(v)), v)


@every_case
def test_split_of_join_is_the_tensors_with_zeros_at_the_dead(name: str) -> None:
    problem = cases.CASES[name]()
    alive = problem.split(torch.ones_like(problem.weights))
    drawn = {n: _vector(s.numel()).view(s) for n, s in problem.live.shapes.items()}
    back = problem.split(problem.join(drawn))
    assert all(torch.equal(back[n], drawn[n] * alive[n]) for n in drawn)
    assert list(back) == list(drawn)


@every_case
def test_size_is_the_number_of_live_weights(name: str) -> None:
    problem = cases.CASES[name]()
    assert problem.size == int(cases.living(problem).sum()) == sum(problem.live.counts().values())


@given(st.lists(st.booleans(), min_size=6, max_size=6), st.integers(0, 99))
def test_any_mask_goes_there_and_back(bits: list[bool], seed: int) -> None:
    alive = torch.tensor(bits).view(2, 3)
    live = LiveCoordinates.of(_net(), Mask({"0.weight": alive}))
    v = _vector(live.size, seed)
    parts = live.split(v)
    assert torch.equal(parts["0.weight"][alive], v[: int(alive.sum())])
    assert (parts["0.weight"][~alive] == 0).all()
    assert torch.equal(live.join(parts), v)


def test_coordinates_follow_the_order_of_the_net() -> None:
    live = LiveCoordinates.of(_net(), MASK)
    parts = live.split(torch.arange(1.0, 9.0))
    assert list(parts) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert parts["0.weight"].tolist() == [[1, 0, 2], [0, 0, 3]]
    assert parts["0.bias"].tolist() == [4, 5]
    assert parts["1.weight"].tolist() == [[6, 7]]
    assert parts["1.bias"].tolist() == [8]
    assert live.counts() == {"0.weight": 3, "0.bias": 2, "1.weight": 2, "1.bias": 1}


def test_counts_without_a_mask_are_the_sizes() -> None:
    counts = LiveCoordinates.of(_net(), None).counts()
    assert counts == {"0.weight": 6, "0.bias": 2, "1.weight": 2, "1.bias": 1}


def test_a_tensor_without_life_counts_zero() -> None:
    live = LiveCoordinates.of(_net(), Mask({"1.weight": torch.zeros(1, 2, dtype=torch.bool)}))
    assert live.counts() == {"0.weight": 6, "0.bias": 2, "1.weight": 0, "1.bias": 1}


def test_what_lies_at_dead_weights_never_gets_into_a_vector() -> None:
    net = _net()
    live = LiveCoordinates.of(net, MASK)
    weights = {n: torch.ones_like(p) for n, p in net.named_parameters()}
    weights["0.weight"][1] = float("nan")
    weights["0.weight"][1, 2] = 1.0
    weights["0.weight"][0, 1] = float("inf")
    assert live.join(weights).tolist() == [1.0] * live.size


def test_a_name_left_out_counts_as_zero() -> None:
    live = LiveCoordinates.of(_net(), None)
    v = live.join({"1.bias": torch.tensor([7.0])})
    assert v.tolist() == [0.0] * 10 + [7.0]


def test_frozen_weights_have_no_coordinates() -> None:
    net = _net()
    net[0].weight.requires_grad_(False)
    assert list(LiveCoordinates.of(net, None).shapes) == ["0.bias", "1.weight", "1.bias"]


def test_shared_weights_have_one_coordinate_each() -> None:
    assert list(cases.tied_weights().live.shapes) == [
        "encoder.weight",
        "encoder.bias",
        "decoder.bias",
    ]


def test_split_can_be_differentiated() -> None:
    live = LiveCoordinates.of(_net(), MASK)
    v = torch.ones(live.size, requires_grad=True)
    (gradient,) = torch.autograd.grad(live.split(v)["0.weight"].square().sum(), v)
    assert gradient.tolist() == [2, 2, 2, 0, 0, 0, 0, 0]


# some of the weights


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ("*", ["0.weight", "0.bias", "1.weight", "1.bias"]),
        ("0.*", ["0.weight", "0.bias"]),
        ("*.weight", ["0.weight", "1.weight"]),
        ("matrices", ["0.weight", "1.weight"]),
        ("1.bias, 0.weight", ["0.weight", "1.bias"]),
        ("matrices,0.bias", ["0.weight", "0.bias", "1.weight"]),
        ("[01].bias", ["0.bias", "1.bias"]),
        ("nothing,?.bias", ["0.bias", "1.bias"]),
    ],
)
def test_globs_choose_weights_in_the_order_of_the_net(params: str, names: list[str]) -> None:
    assert list(LiveCoordinates.of(_net(), None, params).shapes) == names


def test_globs_and_a_mask_choose_together() -> None:
    live = LiveCoordinates.of(_net(), MASK, "0.*")
    assert live.counts() == {"0.weight": 3, "0.bias": 2}
    parts = live.split(torch.arange(1.0, 6.0))
    assert parts["0.weight"].tolist() == [[1, 0, 2], [0, 0, 3]]
    assert parts["0.bias"].tolist() == [4, 5]
    assert LiveCoordinates.of(_net(), MASK, "1.*").size == 3


def test_globs_do_not_thaw_frozen_weights() -> None:
    net = _net()
    net[0].weight.requires_grad_(False)
    assert list(LiveCoordinates.of(net, None, "matrices").shapes) == ["1.weight"]
    with pytest.raises(ValueError, match=r"unknown trainable weight '0\.weight'"):
        LiveCoordinates.of(net, None, "0.weight")


def test_matrices_of_norms_and_convolutions() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    assert list(LiveCoordinates.of(net, None, "matrices").shapes) == ["0.weight", "3.weight"]


@pytest.mark.parametrize("params", ["2.*", "weight", "0.weigth", "2.*,3.*"])
def test_globs_that_match_nothing_are_refused(params: str) -> None:
    with pytest.raises(ValueError, match=r"unknown trainable weight .*Known, by level: 0\.bias"):
        LiveCoordinates.of(_net(), None, params)


# the bits


@pytest.mark.parametrize("params", [None, "0.*", "1.*"])
def test_bits_are_those_of_the_mask(params: str | None) -> None:
    live = LiveCoordinates.of(_net(), MASK, params)
    alive = torch.cat([t.flatten() for t in live.split(torch.ones(live.size)).values()])
    assert np.unpackbits(live.bits(), count=len(alive)).tolist() == alive.tolist()
    assert len(LiveCoordinates.of(_net(), None, params).bits()) == 0


# what is refused


@pytest.mark.parametrize("shape", [(7,), (9,), (8, 1), ()])
def test_a_vector_of_another_length_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"need \(8,\), one number for each live weight"):
        LiveCoordinates.of(_net(), MASK).split(torch.ones(shape))


def test_an_unknown_name_is_refused_with_the_near_one() -> None:
    with pytest.raises(ValueError, match=r"'0\.weigth'; did you mean '0\.weight'"):
        LiveCoordinates.of(_net(), None).join({"0.weigth": torch.ones(2, 3)})


def test_a_frozen_name_is_refused() -> None:
    net = _net()
    net[0].bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"unknown trainable weight '0\.bias'"):
        LiveCoordinates.of(net, None).join({"0.bias": torch.ones(2)})


@pytest.mark.parametrize("shape", [(7,), (3, 2), (2, 2)])
def test_a_tensor_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        LiveCoordinates.of(_net(), None).join({"0.weight": torch.ones(shape)})


def test_no_tensors_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="need"):
        LiveCoordinates.of(_net(), None).join({})


def test_a_net_that_cannot_move_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter with requires_grad"):
        LiveCoordinates.of(_net().requires_grad_(False), None)


def test_a_mask_for_another_net_is_refused() -> None:
    mask = Mask({"0.weigth": torch.ones(2, 3, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"did you mean '0\.weight'"):
        LiveCoordinates.of(_net(), mask)
