"""Weights of a file in the network that they belong to."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import BATCH, X, dense, load, make, masked, random_mask, write
from torch import Tensor, nn

from sparsediag import Checkpoint, CheckpointError, Mask, Problem
from sparsediag.checkpoint import mask_file


class MaskedLinear(nn.Linear):
    """A layer that masks itself, by a buffer."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mask", torch.ones(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight * self.mask, self.bias)


def test_a_net_with_masks_in_its_buffers_gets_them(tmp_path: Path) -> None:
    net = nn.Sequential(MaskedLinear(6, 5), nn.ReLU(), MaskedLinear(5, 2))
    mask = random_mask(net, 0.5)
    for name, m in mask.items():
        net.get_submodule(name.removesuffix(".weight")).mask.copy_(m)
    path = write(tmp_path / "net.pt", net.state_dict())
    fresh = nn.Sequential(MaskedLinear(6, 5), nn.ReLU(), MaskedLinear(5, 2))
    checkpoint = Checkpoint.load(path)
    assert checkpoint.mask == mask
    built = checkpoint.build(model=fresh)
    assert torch.equal(built(torch.eye(6)), net(torch.eye(6)))
    assert torch.equal(built[0].mask, net[0].mask)
    assert (fresh[0].mask == 1).all()  # the net that came stays as it was
    data = [(torch.eye(6), torch.arange(6) % 2)]
    problem = checkpoint.problem(model=fresh, data=data, mask="none", device="cpu")
    assert problem.mask is None


def test_zeros_are_a_mask_only_when_asked(tmp_path: Path) -> None:
    net, mask = dense(), random_mask(dense())
    mask.apply_(net)
    path = write(tmp_path / "net.pt", net.state_dict())
    checkpoint = Checkpoint.load(path)
    assert checkpoint.mask is None
    share = 1 - mask.alive / mask.size
    assert (
        checkpoint.made_by["mask"]
        == f"none; {share:.0%} of the weights are exactly 0: --mask zeros"
    )
    told: list[str] = []
    for asked, expected in {None: None, "none": None, "zeros": mask}.items():
        problem = checkpoint.problem(
            model=make, data=BATCH, mask=asked, device="cpu", note=told.append
        )
        assert problem.mask == expected
    assert told[1] == "mask: none, as asked"
    assert told[2].startswith("mask: exact zeros of 2 tensors")


def test_a_mask_of_another_file(tmp_path: Path) -> None:
    net, mask = dense(), random_mask(dense())
    checkpoint = load(tmp_path, net.state_dict())
    mask_file.save(mask, tmp_path / "mask.pt")
    told: list[str] = []
    problem = checkpoint.problem(
        model=make, data=BATCH, mask=tmp_path / "mask.pt", device="cpu", note=told.append
    )
    assert problem.digest == Problem(masked(net, mask), BATCH, mask=mask).digest
    assert told == [
        f"mask: {tmp_path / 'mask.pt'} of 2 tensors; {mask.size - mask.alive} of {mask.size} "
        "weights dead; in the file 0 of them were 0, they are held at 0 here"
    ]
    mask_file.save(Mask({"5.weight": mask["4.weight"]}), tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other.pt does not fit the net: unknown weight"):
        checkpoint.problem(model=make, data=BATCH, mask=tmp_path / "other.pt", device="cpu")


class Tied(nn.ModuleDict):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__({n: nn.Linear(3, 3, bias=False) for n in ("e", "h")})
        self["h"].weight = self["e"].weight

    def forward(self, x: Tensor) -> Any:
        return self["h"](self["e"](x))


def test_tied_weights_stay_tied_and_one_name_is_enough(tmp_path: Path) -> None:
    one = {"h.weight": torch.arange(9.0).view(3, 3)}
    built = load(tmp_path, one).build(model=Tied)
    assert built["e"].weight is built["h"].weight
    assert torch.equal(built["e"].weight, one["h.weight"])


def test_tied_weights_that_differ_are_refused(tmp_path: Path) -> None:
    state = {"e.weight": torch.rand(3, 3), "h.weight": torch.rand(3, 3)}
    with pytest.raises(CheckpointError, match=r"'e.weight' and 'h.weight' are one tensor in Tied"):
        load(tmp_path, state).build(model=Tied)
    nan = torch.full((3, 3), torch.nan)
    built = load(tmp_path, dict.fromkeys(state, nan)).build(model=Tied)
    assert built["e"].weight.isnan().all()


@pytest.mark.parametrize("own", [True, False], ids=["beside", "file"])
def test_a_mask_by_another_name_of_a_tied_weight(tmp_path: Path, own: bool) -> None:
    values, alive = torch.arange(1.0, 10.0).view(3, 3), torch.eye(3).bool()
    state = {"e.weight": values, "h.weight": values}
    payload = {"model": state, "masks": {"h.weight": alive}}
    checkpoint = load(tmp_path, payload if own else state)
    mask_file.save(Mask({"h.weight": alive}), tmp_path / "mask.pt")
    data = [(torch.eye(3), torch.arange(3))]
    asked = None if own else tmp_path / "mask.pt"
    problem = checkpoint.problem(model=Tied, data=data, mask=asked, device="cpu")
    assert problem.mask == Mask({"e.weight": alive})
    assert torch.equal(problem.net["h"].weight, values * alive)


def test_a_mask_outside_of_the_net_is_told(tmp_path: Path) -> None:
    """Of a whole net with a backbone and a neck, the backbone alone is filled."""
    whole = nn.ModuleDict({"backbone": dense(), "neck": nn.Linear(2, 2)})
    neck, inner = torch.eye(2).bool(), random_mask(dense())
    for mask in ({}, {f"backbone.{n}": m for n, m in inner.items()}):
        payload = {"model": whole.state_dict(), "masks": {**mask, "neck.weight": neck}}
        checkpoint, lines = load(tmp_path, payload), list[str]()
        problem = checkpoint.problem(model=make, data=BATCH, device="cpu", note=lines.append)
        assert problem.mask == (inner if mask else None)
        about = f"the file's mask of 2 tensors; {inner.size - inner.alive} of {inner.size} weights"
        about = f"{about} dead" if mask else "none"
        left = "left out, as they are outside of 'backbone.': 'neck.weight'"
        assert lines == [f"mask: {about}; {left}"]


def test_buffers_of_other_versions_are_left_out(tmp_path: Path) -> None:
    others = {
        "embeddings.position_ids": torch.arange(4)[None],
        "h.0.attn.bias": torch.ones(1, 1, 4, 4).tril(),
        "h.0.attn.masked_bias": torch.tensor(-1e4),
        "rotary_emb.inv_freq": torch.ones(2) / 3,
    }
    checkpoint = load(tmp_path, {**dense().state_dict(), **others})
    lines: list[str] = []
    checkpoint.problem(model=make, data=BATCH, device="cpu", note=lines.append)
    assert lines[1:] == [
        "file: left out, as make has no place for it: 'embeddings.position_ids', and 3 more"
    ]
    weight = {"h.0.attn.bias": torch.ones(4)}
    checkpoint = load(tmp_path, {**dense().state_dict(), **weight})
    with pytest.raises(CheckpointError, match=r"the model has no 'h.0.attn.bias'"):
        checkpoint.build(model=make)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_of_16_bits_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    net = dense().to(dtype)
    checkpoint, lines = load(tmp_path, net.state_dict()), list[str]()
    assert checkpoint.weights["4.weight"].dtype == dtype
    problem = checkpoint.problem(model=make, data=BATCH, device="cpu", note=lines.append)
    assert lines[1:] == ["file: its numbers of 16 bits are float32 here"]
    assert torch.equal(problem.net(X), net.float()(X))


def test_precision_and_frozen_weights_are_kept(tmp_path: Path) -> None:
    net = dense().double()
    made = make()
    made[0].weight.requires_grad_(False)
    before, rng = copy.deepcopy(made.state_dict()), torch.random.get_rng_state()
    built = load(tmp_path, net.state_dict()).build(model=made)
    assert built[4].weight.dtype == torch.float64
    assert not built[0].weight.requires_grad
    assert torch.equal(built(X.double()), net(X.double()))
    assert made.training
    assert all(torch.equal(t, before[n]) for n, t in made.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), rng)


def test_a_counter_of_batches_may_be_missing(tmp_path: Path) -> None:
    state = {n: t for n, t in dense().state_dict().items() if "num_batches" not in n}
    built = load(tmp_path, state).build(model=make)
    assert torch.equal(built(X), dense()(X))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"4.bias": None, "4.weight": None}, "the file holds no '4.weight', and 1 more"),
        ({"4.weight": torch.ones(4, 5)}, r"'4.weight' is \(4, 5\) in the file, \(4, 12\) in the"),
        ({"5.bias": torch.ones(5)}, "the model has no '5.bias'"),
        ({"4.weight": torch.ones(4, 12).char()}, "'4.weight' is int8 in the file, quantised"),
        (
            {"4.weight_scale_inv": torch.ones(1)},
            "the model has no '4.weight_scale_inv'; the weights are quantised",
        ),
        (
            {"4.weight": torch.ones(24, 1).byte(), "4.absmax": torch.ones(1)},
            ".* quantised, as '4.abs",
        ),
        ({"4.weight": torch.ones(4, 12).bool()}, "'4.weight' is bool in the file, quantised"),
        ({"_flat_param": torch.ones(9)}, "the model has no '_flat_param'; .* of FSDP"),
    ],
    ids=["missing", "shape", "unknown", "int8", "fp8", "4 bits", "bool", "flat"],
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_weights_that_do_not_fit(
    tmp_path: Path, change: dict[str, Tensor | None], message: str, prefix: str
) -> None:
    state = {**dense().state_dict(), **change}
    checkpoint = load(tmp_path, {f"{prefix}{n}": t for n, t in state.items() if t is not None})
    mask_file.save(random_mask(dense()), tmp_path / "mask.pt")
    for mask in (None, tmp_path / "mask.pt"):
        with pytest.raises(CheckpointError, match=f"^weights do not fit make: {message}"):
            checkpoint.problem(model=make, data=BATCH, mask=mask, device="cpu")


def test_a_net_that_is_there_twice(tmp_path: Path) -> None:
    state = {f"{p}.{n}": t for p in ("net1", "ema") for n, t in dense().state_dict().items()}
    checkpoint = load(tmp_path, state)
    with pytest.raises(CheckpointError, match=r"twice, under 'net1.' and 'ema.'; save one of them"):
        checkpoint.build(model=make)
