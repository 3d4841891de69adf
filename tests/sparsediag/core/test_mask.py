"""Masks: what they cover, how many weights they keep, and that they survive a file."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparsediag.core.mask import Mask
from sparsediag.core.prunable import prunable
from sparsediag.models import build

DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
SHAPES = {"a": (7, 3, 3, 3), "b": (5,), "c": (11, 13), "d": (1, 1), "e": ()}
SCORES = {
    "random": torch.randn,
    "constant": torch.ones,
    "zero": torch.zeros,
    "integer": lambda shape: torch.randint(-3, 4, shape),
    "half": lambda shape: torch.randn(shape).half(),
}

shapes = st.lists(st.integers(1, 5), max_size=4).map(tuple)
densities = st.floats(0, 1, exclude_min=True)
bits = st.dictionaries(
    st.text("ab.0", min_size=1, max_size=8),
    st.tuples(shapes, st.integers(0, 2**32 - 1)),
    min_size=1,
    max_size=4,
).map(lambda spec: {name: _coins(shape, seed) for name, (shape, seed) in spec.items()})
few_values = st.lists(
    st.lists(st.integers(-2, 2), min_size=1, max_size=40), min_size=1, max_size=4
).map(lambda rows: {f"w{i}": torch.tensor(row) for i, row in enumerate(rows)})

quick = settings(max_examples=60, deadline=None)


def _coins(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5


def _cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(4, 2)
    )


def _scores(kind: str = "random") -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: SCORES[kind](shape) for name, shape in SHAPES.items()}


def _size(scores: dict[str, Tensor]) -> int:
    return sum(s.numel() for s in scores.values())


def _through_a_file(packed: dict) -> tuple[dict, int]:
    file = io.BytesIO()
    torch.save(packed, file)
    file.seek(0)
    return torch.load(file, weights_only=True), file.getbuffer().nbytes


# a mask is a checked value


def test_mask_is_cloned_on_the_way_in() -> None:
    alive = torch.tensor([True, False])
    mask = Mask({"w": alive})
    alive.fill_(False)
    assert mask.alive == 1


def test_mask_takes_no_writes() -> None:
    mask = Mask({"w": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(TypeError, match="item assignment"):
        mask["w"] = torch.zeros(2, dtype=torch.bool)  # type: ignore[index]
    with pytest.raises(AttributeError):
        mask.note = "kept"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("value", "came"), [(torch.ones(2), "torch.float32"), ([True], "list"), (None, "NoneType")]
)
def test_mask_refuses_other_types(value: object, came: str) -> None:
    with pytest.raises(TypeError, match=rf"mask of 'w' is {came}; need .*torch.bool"):
        Mask({"w": value})  # type: ignore[dict-item]


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="pass no mask"):
        Mask({})


def test_counts_and_table() -> None:
    mask = Mask({"a": torch.tensor([[True, False], [False, False]]), "b": torch.tensor([True])})
    assert (mask.alive, mask.size, mask.density) == (2, 5, 0.4)
    assert mask.table() == [("a", 1, 4), ("b", 1, 1)]
    assert repr(mask) == "Mask(2 of 5 weights alive, 2 tensors)"


# the highest scores


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("kind", SCORES)
def test_top_keeps_exactly_the_share_asked_for(kind: str, density: float) -> None:
    scores = _scores(kind)
    mask = Mask.top(scores, density)
    assert mask.alive == round(density * _size(scores))
    assert {name: tuple(m.shape) for name, m in mask.items()} == SHAPES


@quick
@given(few_values, densities)
def test_top_is_exact_at_any_size_and_keeps_the_highest(
    scores: dict[str, Tensor], density: float
) -> None:
    mask = Mask.top(scores, density)
    assert mask.alive == round(density * _size(scores))
    flat = torch.cat(list(scores.values())).tolist()
    ranking = sorted(range(len(flat)), key=lambda i: (-flat[i], i))  # ties: the earlier one first
    kept = torch.cat(list(mask.values())).nonzero().flatten().tolist()
    assert kept == sorted(ranking[: mask.alive])


@quick
@given(few_values, densities, densities)
def test_top_is_nested_in_density(scores: dict[str, Tensor], one: float, other: float) -> None:
    sparse, dense = (Mask.top(scores, density) for density in sorted((one, other)))
    assert all((dense[name] | ~alive).all() for name, alive in sparse.items())


@quick
@given(few_values, densities)
def test_top_of_each_layer_is_exact_in_each(scores: dict[str, Tensor], density: float) -> None:
    for name, alive, size in Mask.top(scores, density, scope="layer").table():
        assert size == scores[name].numel()
        assert alive == round(density * size)


def test_top_gives_ties_to_the_earlier_weight() -> None:
    mask = Mask.top({"a": torch.zeros(2, 2), "b": torch.zeros(2)}, 0.5)
    assert mask["a"].tolist() == [[True, True], [True, False]]
    assert mask["b"].tolist() == [False, False]


def test_top_ranks_all_layers_together_or_each_alone() -> None:
    scores = {"low": torch.arange(4), "high": torch.arange(4) + 10}
    assert Mask.top(scores, 0.5).table() == [("low", 0, 4), ("high", 4, 4)]
    assert Mask.top(scores, 0.5, scope="layer").table() == [("low", 2, 4), ("high", 2, 4)]


def test_top_ranks_in_reading_order_whatever_the_memory_layout() -> None:
    score = torch.arange(6.0).view(2, 3).t()
    assert Mask.top({"w": score}, 1 / 6)["w"].tolist() == (score == 5).tolist()


def test_top_allows_infinite_scores() -> None:
    inf = float("inf")
    scores = {"w": torch.tensor([-inf, 1.0, inf, -inf, 0.0, inf])}
    assert Mask.top(scores, 1 / 3)["w"].tolist() == [False, False, True, False, False, True]
    assert Mask.top(scores, 5 / 6)["w"].tolist() == [True, True, True, False, True, True]


def test_top_refuses_nan_and_names_the_layer() -> None:
    with pytest.raises(ValueError, match="'bad' hold NaN"):
        Mask.top({"good": torch.ones(2), "bad": torch.tensor([1.0, float("nan")])}, 0.5)


@pytest.mark.parametrize("density", [0, 1.5, -1, float("nan")])
def test_top_refuses_a_density_that_cannot_be(density: float) -> None:
    with pytest.raises(ValueError, match=r"need a number in \(0, 1\].*write density = 0.1"):
        Mask.top(_scores(), density)


def test_top_refuses_an_unknown_scope() -> None:
    with pytest.raises(ValueError, match="scope 'local': need 'global' or 'layer'"):
        Mask.top(_scores(), 0.5, scope="local")  # type: ignore[arg-type]


# a mask and its net


def test_apply_zeroes_the_dead_and_moves_nothing_else() -> None:
    torch.manual_seed(0)
    net = _cnn()
    mask = Mask.top({name: torch.rand_like(net.get_parameter(name)) for name in prunable(net)}, 0.1)
    first, alive = net[0].weight.data, mask["0.weight"]
    first[~alive] = float("nan")  # 0 * NaN would stay NaN
    first.view(-1)[alive.flatten().nonzero()[0]] = -0.0
    before = {name: t.clone() for name, t in net.state_dict().items()}
    mask.apply_(net)
    assert net[0].weight.data.data_ptr() == first.data_ptr()
    for name, after in net.state_dict().items():
        kept = mask.get(name, torch.ones_like(after, dtype=torch.bool))
        assert (after[~kept] == 0).all()
        assert after[kept].numpy().tobytes() == before[name][kept].numpy().tobytes()


def test_of_reads_the_mask_off_the_zeros() -> None:
    torch.manual_seed(0)
    net = _cnn()
    assert Mask.of(net).density == 1
    mask = Mask.top({name: torch.rand_like(net.get_parameter(name)) for name in prunable(net)}, 0.3)
    mask.apply_(net)
    assert Mask.of(net) == mask


def test_check_suggests_the_near_name() -> None:
    mask = Mask({"0.weigth": torch.ones(8, 3, 3, 3, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"'0\.weigth'; did you mean '0\.weight'"):
        mask.check(_cnn())


def test_check_says_both_shapes_and_apply_checks_first() -> None:
    net = _cnn()
    weight = net[0].weight.clone()
    mask = Mask({"0.weight": _coins((8, 3, 3, 3), 0), "2.weight": _coins((4, 8), 0)})
    with pytest.raises(ValueError, match=r"'2.weight' is \(4, 8\), .*\(4, 8, 1, 1\)"):
        mask.apply_(net)
    assert torch.equal(net[0].weight, weight)


# identity and files


@quick
@given(bits)
def test_pack_and_unpack_are_inverse(masks: dict[str, Tensor]) -> None:
    mask = Mask(masks)
    back = Mask.unpack(mask.pack())
    assert back == mask
    assert list(back) == list(mask)
    assert back.digest == mask.digest


@quick
@given(bits, st.data())
def test_one_bit_makes_another_mask(masks: dict[str, Tensor], data: st.DataObject) -> None:
    mask, same = Mask(masks), Mask(masks)
    assert mask == same
    assert hash(mask) == hash(same)
    name = data.draw(st.sampled_from(list(masks)))
    masks[name].view(-1)[data.draw(st.integers(0, masks[name].numel() - 1))].logical_not_()
    assert Mask(masks) != mask
    assert Mask(masks).digest != mask.digest


def test_digest_knows_names_and_shapes() -> None:
    alive = torch.ones(2, 3, dtype=torch.bool)
    variants = [Mask({"a": alive}), Mask({"b": alive}), Mask({"a": alive.t()})]
    assert len({m.digest for m in variants}) == 3
    assert len(set(variants)) == 3
    assert variants[0] != {"a": alive}


def test_equal_masks_have_one_hash() -> None:
    a, b = _coins((3,), 0), _coins((4,), 1)
    one, other = Mask({"a": a, "b": b}), Mask({"b": b, "a": a})
    assert one != other or hash(one) == hash(other)


def test_a_packed_mask_goes_through_a_file() -> None:
    mask = Mask({name: _coins(shape, 0) for name, shape in SHAPES.items()})
    packed, _ = _through_a_file(mask.pack())
    assert Mask.unpack(packed) == mask


def test_a_packed_resnet18_mask_is_small() -> None:
    with torch.device("meta"):
        net = build("resnet18")
    torch.manual_seed(0)
    mask = Mask.top(
        {name: torch.rand(net.get_parameter(name).shape) for name in prunable(net)}, 0.1
    )
    packed, size = _through_a_file(mask.pack())
    assert mask.alive == 1_115_923
    assert size < 1_400_000
    assert Mask.unpack(packed) == mask


def test_to_keeps_the_mask() -> None:
    mask = Mask({"w": _coins((5, 5), 0)})
    assert mask.to("cpu") == mask
    assert mask.to("meta")["w"].is_meta


# several masks

ONE = Mask({"w": torch.tensor([True, True, False, False])})
OTHER = Mask({"w": torch.tensor([True, False, True, False])})


def test_the_union_is_alive_where_either_is_and_the_intersection_where_both_are() -> None:
    assert (ONE | OTHER)["w"].tolist() == [True, True, True, False]
    assert (ONE & OTHER)["w"].tolist() == [True, False, False, False]


def test_a_tensor_that_a_mask_leaves_out_is_all_alive() -> None:
    more = Mask({"w": OTHER["w"], "v": torch.tensor([False, True])})
    for union in (ONE | more, more | ONE):
        assert union == Mask({"w": (ONE | OTHER)["w"], "v": torch.tensor([True, True])})
    for both in (ONE & more, more & ONE):
        assert both == Mask({"w": (ONE & OTHER)["w"], "v": torch.tensor([False, True])})


def test_masks_of_different_tensors_join_too() -> None:
    v = Mask({"v": torch.tensor([False, True])})
    assert (ONE | v).density == 1
    assert (ONE & v) == Mask({"w": ONE["w"], "v": v["v"]})


@quick
@given(bits, st.integers(0, 2**32 - 1))
def test_joins_take_either_order_and_absorb(masks: dict[str, Tensor], seed: int) -> None:
    one = Mask(masks)
    other = Mask({name: _coins(tuple(m.shape), seed) for name, m in masks.items()})
    assert one | other == other | one
    assert one & other == other & one
    assert (one & other) | one == (one | other) & one == one
