"""Mask files of this package and of other tools, and tensors that must not be taken for a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import BATCH, beside, dense, load, make, pruned, random_mask, write
from torch import Tensor, nn

from sparsediag import Checkpoint, CheckpointError, Mask
from sparsediag.checkpoint import mask_file


def refused(path: Path, match: str, *, zeros: bool = False) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        mask_file.load(path, zeros=zeros)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def checkpoint(net: nn.Module, mask: Mask | None = None) -> Checkpoint:
    if mask:
        mask.apply_(net)
    return Checkpoint.of(net, mask=mask, model="mine", options={})


# files of this package


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", [Path, str])
def test_a_mask_comes_back_from_its_file(tmp_path: Path, density: float, kind: type) -> None:
    mask = random_mask(dense(), density)
    mask_file.save(mask, kind(tmp_path / "mask.pt"))
    loaded = mask_file.load(kind(tmp_path / "mask.pt"))
    assert loaded == mask
    assert list(loaded) == list(mask)
    assert loaded.digest == mask.digest
    assert [p.name for p in tmp_path.iterdir()] == ["mask.pt"]


@pytest.mark.parametrize("zeros", [False, True])
def test_a_checkpoint_gives_its_mask_whatever_else_is_zero(tmp_path: Path, zeros: bool) -> None:
    mask = random_mask(dense())
    saved = checkpoint(dense(), mask)
    saved.weights["4.weight"][tuple(mask["4.weight"].nonzero()[0])] = 0.0  # alive, 0 by chance
    saved.save(tmp_path / "net.pt")
    assert mask_file.load(tmp_path / "net.pt", zeros=zeros) == mask


def test_the_zeros_of_a_dense_checkpoint_are_a_mask_only_on_request(tmp_path: Path) -> None:
    saved, path = checkpoint(dense()), tmp_path / "net.pt"
    saved.save(path)
    for zeros in (False, True):
        refused(path, "net.pt holds no mask$", zeros=zeros)
    saved.weights["4.weight"][:, 1] = 0.0
    saved.weights["4.bias"].zero_()
    saved.save(path)
    refused(path, "holds no mask; its weights hold zeros: zeros = true$")
    assert mask_file.load(path, zeros=True) == Mask({"4.weight": saved.weights["4.weight"] != 0})


# files of other tools; see also test_mask_conventions and test_state_dicts


def test_a_mask_of_one_layer(tmp_path: Path) -> None:
    mask = Mask({"4.weight": random_mask(dense())["4.weight"]})
    path = write(tmp_path / "net.pt", pruned(dense(), mask).state_dict())
    assert mask_file.load(path) == mask


DTYPES = [torch.bool, torch.float32, torch.float16, torch.uint8, torch.int64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("end", ["weight_mask", "mask"])
def test_masks_beside_the_weights(tmp_path: Path, end: str, dtype: torch.dtype) -> None:
    mask = random_mask(dense())
    path = write(tmp_path / "net.pt", beside(dense(), mask, end, dtype))
    assert mask_file.load(path) == mask
    assert mask_file.load(path, zeros=True) == mask


def test_a_layer_alone(tmp_path: Path) -> None:
    alive = torch.tensor([[True, False]])
    state = {"weight": torch.ones(1, 2) / 3, "bias": torch.zeros(1), "mask": alive}
    assert mask_file.load(write(tmp_path / "net.pt", state)) == Mask({"weight": alive})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("key", [None, "state_dict", "model", "net", "model_state_dict"])
def test_a_dict_of_masks(tmp_path: Path, key: str | None, dtype: torch.dtype) -> None:
    mask = random_mask(dense())
    masks = {name: m.to(dtype) for name, m in mask.items()}
    payload = {"epoch": 3, key: masks, "optimizer": {"state": {}}} if key else masks
    assert mask_file.load(write(tmp_path / "mask.pt", payload)) == mask


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_the_prefix_of_a_wrapper_is_removed(tmp_path: Path, prefix: str) -> None:
    mask = random_mask(dense())
    path = write(tmp_path / "mask.pt", {f"{prefix}{n}": m for n, m in mask.items()})
    assert mask_file.load(path) == mask


def test_a_wrapper_inside_the_name_is_kept(tmp_path: Path) -> None:
    state = {"body.module.weight": torch.tensor([True, False])}
    assert list(mask_file.load(write(tmp_path / "mask.pt", state))) == ["body.module.weight"]


# files without a mask


def zero_biases() -> dict[str, Tensor]:
    """Biases of 0, batch norm as it starts, and weights that are neither."""
    state = dense().state_dict()
    return {n: torch.zeros_like(t) if n.endswith("bias") else t for n, t in state.items()}


STATES = {
    "trained": dense().state_dict(),
    "zero biases": zero_biases(),
    "a counter of 1": {"w": torch.ones(3, 3) / 3, "1.num_batches_tracked": torch.tensor(1)},
    "attention": {"4.mask": torch.ones(4, 4), "attention.mask": torch.ones(4, 4).bool()},
    "soft gates": {"4.weight_mask": torch.full((4, 12), 0.6)},
    "a scalar": {"drop.mask": torch.tensor(1.0)},
    "attention_mask": {"block.attn_mask": torch.ones(2, 2).tril()},
    "a new norm": {"bn.weight": torch.ones(3), "bn.bias": torch.zeros(3)},
    "causal": {"causal": torch.ones(2, 2).tril().bool(), "w": torch.ones(2, 2) / 3},
}


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("zeros", [False, True])
def test_zeros_and_ones_that_are_no_mask(tmp_path: Path, name: str, zeros: bool) -> None:
    state = STATES[name]
    if "4.mask" in state or "4.weight_mask" in state:
        state = dense().state_dict() | state
    path = write(tmp_path / "net.pt", {"fc.bias": torch.ones(2) / 3} | state)
    refused(path, "net.pt holds no mask$", zeros=zeros)


def test_the_zeros_of_a_state_dict_are_those_of_its_matrices(tmp_path: Path) -> None:
    state = zero_biases()
    state["0.weight"][0] = 0.0
    path = write(tmp_path / "net.pt", {"state_dict": state})
    refused(path, "its weights hold zeros: zeros = true$")
    assert mask_file.load(path, zeros=True) == Mask({"0.weight": state["0.weight"] != 0})


PACKED = random_mask(dense()).pack()


@pytest.mark.parametrize(
    ("payload", "match"),
    [
        ({}, "holds no mask$"),
        ({"state_dict": {}}, "holds no mask$"),
        ({"epoch": 3, "name": "net"}, "holds no mask$"),
        ({"format": 1}, "holds no mask$"),
        ({"format": 99, "mask": None}, "format 99, .* up to 1; install .* later$"),
        ({"format": 1, "mask": {"shapes": {}}}, "is no whole mask; write it again$"),
        (
            {"format": 1, "mask": PACKED | {"bits": PACKED["bits"][:-5]}},
            "is no whole mask; write it again$",
        ),
    ],
    ids=["empty", "empty inside", "no tensors", "bare", "newer", "no bits", "few bits"],
)
def test_a_file_without_a_mask(tmp_path: Path, payload: Any, match: str) -> None:
    refused(write(tmp_path / "net.pt", payload), match)


def forms(mask: Mask) -> dict[str, Any]:
    """Return the ways in which a mask without names of weights is stored."""
    first, last = mask.values()
    return {
        "list": [first, last],
        "numpy": [first.numpy(), last.numpy().astype(float)],
        "layers": {"0": first, "4": last},
        "dicts": {n[:1]: {"weight": m.float(), "bias": None} for n, m in mask.items()},
        "deep": {"state": {"masks": [first, last]}, "density": 0.3},
        "longer names": {f"model.{n}": m for n, m in mask.items()},
    }


@pytest.mark.parametrize("form", forms(random_mask(dense())))
def test_the_network_names_the_weights_of_a_mask(tmp_path: Path, form: str) -> None:
    net, mask = dense(), random_mask(dense())
    path = write(tmp_path / "mask.pt", forms(mask)[form])
    assert mask_file.load(path, weights=net.state_dict()) == mask
    problem = load(tmp_path, net.state_dict()).problem(model=make, data=BATCH, mask=path)
    assert problem.mask == mask
    if isinstance(forms(mask)[form], list):
        refused(path, "list of 2 masks names no weights; give it as --mask with its network")


def test_a_mask_of_a_vector_is_one_if_it_was_asked_for(tmp_path: Path) -> None:
    weights = dense().state_dict()
    bias = {"4": {"weight": torch.eye(4, 12), "bias": torch.tensor([1.0, 0.0, 1.0, 1.0])}}
    mask = mask_file.load(write(tmp_path / "mask.pt", bias), weights=weights)
    assert mask == Mask({f"4.{n}": m.bool() for n, m in bias["4"].items()})
    with pytest.raises(CheckpointError, match=r"the mask names '4.weight', which is no weight"):
        mask_file.load(tmp_path / "mask.pt", weights={"4.bias": torch.ones(4)})
