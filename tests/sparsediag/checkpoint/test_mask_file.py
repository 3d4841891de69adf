"""Mask files: those of ours, those that other tools leave, and what must not be taken for one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from sparsediag import Checkpoint, Mask, prunable
from sparsediag.checkpoint import mask_file
from sparsediag.core.errors import CheckpointError
from sparsediag.diagnostics.census import census
from sparsediag.models import build


class Trap:
    """An object whose unpickling makes a file."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.sprung,)


def _net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)
        )


def _mask(net: nn.Module, density: float = 0.3) -> Mask:
    """A mask of coin flips over every weight with two dimensions or more."""
    coins = torch.Generator().manual_seed(1)
    weights = {n: p for n, p in net.named_parameters() if p.dim() > 1}
    return Mask({n: torch.rand(p.shape, generator=coins) < density for n, p in weights.items()})


def _written(path: Path, payload: Any) -> Path:
    torch.save(payload, path)
    return path


def _refused(path: Path, match: str, *, zeros: bool = False) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        mask_file.load(path, zeros=zeros)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def _lenet(density: float | None) -> Checkpoint:
    options = {"size": 8, "width": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build("lenet300", **options)
    if density is None:
        return Checkpoint.of(net, model="lenet300", options=options)
    scores = {name: net.get_parameter(name).abs() for name in prunable(net)}
    mask = Mask.top(scores, density)
    mask.apply_(net)
    return Checkpoint.of(net, mask=mask, model="lenet300", options=options)


# ours


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_a_mask_comes_back_from_its_file(tmp_path: Path, density: float) -> None:
    mask = _mask(_net(), density)
    mask_file.save(mask, tmp_path / "mask.pt")
    back = mask_file.load(tmp_path / "mask.pt")
    assert back == mask
    assert list(back) == list(mask)
    assert back.digest == mask.digest
    assert [p.name for p in tmp_path.iterdir()] == ["mask.pt"]


def test_a_path_may_be_text(tmp_path: Path) -> None:
    mask = _mask(_net())
    mask_file.save(mask, str(tmp_path / "mask.pt"))
    assert mask_file.load(str(tmp_path / "mask.pt")) == mask


@pytest.mark.parametrize("zeros", [False, True])
def test_a_checkpoint_gives_its_mask_whatever_else_is_zero(tmp_path: Path, zeros: bool) -> None:
    kept = _lenet(0.2)
    assert kept.mask is not None
    first = next(iter(kept.mask))
    kept.weights[first][tuple(kept.mask[first].nonzero()[0])] = 0.0  # alive, and 0 by chance
    kept.save(tmp_path / "net.pt")
    assert mask_file.load(tmp_path / "net.pt", zeros=zeros) == kept.mask


def test_a_dense_checkpoint_has_no_mask(tmp_path: Path) -> None:
    _lenet(None).save(tmp_path / "net.pt")
    _refused(tmp_path / "net.pt", "net.pt holds no mask$")
    _refused(tmp_path / "net.pt", "net.pt holds no mask$", zeros=True)


def test_the_zeros_of_a_dense_checkpoint_are_a_mask_for_who_asks(tmp_path: Path) -> None:
    kept = _lenet(None)
    kept.weights["fc.weight"][:, 1] = 0.0
    kept.weights["fc.bias"].zero_()
    kept.save(tmp_path / "net.pt")
    _refused(tmp_path / "net.pt", "holds no mask; its weights hold zeros: zeros = true$")
    mask = mask_file.load(tmp_path / "net.pt", zeros=True)
    assert mask == Mask({"fc.weight": kept.weights["fc.weight"] != 0})
    assert mask.alive == 30


# those of others


def _pruned(net: nn.Module, mask: Mask) -> dict[str, Tensor]:
    """The state dict after `torch.nn.utils.prune`."""
    for name, m in mask.items():
        module, _, weight = name.rpartition(".")
        prune.custom_from_mask(net.get_submodule(module), weight, m)
    return net.state_dict()


def _beside(net: nn.Module, mask: Mask, kind: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """A state dict with each mask in a buffer beside its weight."""
    state = dict(net.state_dict())
    for name, m in mask.items():
        key = f"{name}_mask" if kind == "weight_mask" else f"{name.removesuffix('weight')}mask"
        state[key] = m.to(dtype)
    return state


def test_torch_prune_is_read(tmp_path: Path) -> None:
    net = _net()
    mask = _mask(net)
    state = _pruned(net, mask)
    assert {"0.weight_orig", "0.weight_mask", "4.weight_orig", "4.weight_mask"} <= set(state)
    assert mask_file.load(_written(tmp_path / "net.pt", state)) == mask


def test_torch_prune_of_one_layer_covers_that_layer(tmp_path: Path) -> None:
    net = _net()
    mask = Mask({"4.weight": _mask(net)["4.weight"]})
    assert mask_file.load(_written(tmp_path / "net.pt", _pruned(net, mask))) == mask


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.uint8, torch.int64])
@pytest.mark.parametrize("kind", ["weight_mask", "mask"])
def test_buffers_beside_the_weights_are_read(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    net = _net()
    mask = _mask(net)
    path = _written(tmp_path / "net.pt", _beside(net, mask, kind, dtype))
    assert mask_file.load(path) == mask
    assert mask_file.load(path, zeros=True) == mask


def test_a_layer_by_itself_is_read(tmp_path: Path) -> None:
    alive = torch.tensor([[True, False]])
    state = {"weight": torch.ones(1, 2) / 3, "bias": torch.zeros(1), "mask": alive}
    assert mask_file.load(_written(tmp_path / "net.pt", state)) == Mask({"weight": alive})


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.float32, torch.float16, torch.uint8, torch.int64]
)
def test_a_plain_dict_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    mask = _mask(_net())
    path = _written(tmp_path / "mask.pt", {name: m.to(dtype) for name, m in mask.items()})
    assert mask_file.load(path) == mask


@pytest.mark.parametrize("key", ["state_dict", "model", "net", "model_state_dict"])
@pytest.mark.parametrize("kind", ["prune", "buffers", "plain"])
def test_a_state_under_a_key_is_read(tmp_path: Path, kind: str, key: str) -> None:
    net = _net()
    mask = _mask(net)
    state = {
        "prune": lambda: _pruned(net, mask),
        "buffers": lambda: _beside(net, mask, "mask", torch.bool),
        "plain": lambda: dict(mask),
    }[kind]()
    path = _written(tmp_path / "net.pt", {"epoch": 3, key: state, "optimizer": {"state": {}}})
    assert mask_file.load(path) == mask


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("kind", ["weight_mask", "mask"])
def test_what_a_wrapper_puts_before_the_names_goes(tmp_path: Path, kind: str, prefix: str) -> None:
    net = _net()
    mask = _mask(net)
    state = _beside(net, mask, kind, torch.float32)
    path = _written(tmp_path / "net.pt", {f"{prefix}{n}": t for n, t in state.items()})
    assert mask_file.load(path) == mask


def test_a_wrapper_inside_the_name_stays(tmp_path: Path) -> None:
    state = {"body.module.weight": torch.tensor([True, False])}
    assert list(mask_file.load(_written(tmp_path / "mask.pt", state))) == ["body.module.weight"]


# what is no mask


def _trained() -> dict[str, Tensor]:
    return dict(_net().state_dict())


def _zero_biases() -> dict[str, Tensor]:
    """Biases of 0, batch norm as it starts, and weights that are neither."""
    state = _trained()
    return {n: torch.zeros_like(t) if n.endswith("bias") else t for n, t in state.items()}


def _one_counter() -> dict[str, Tensor]:
    """The only tensor of 0 and 1 is the counter of batches."""
    torch.manual_seed(0)
    state = {n: torch.randn(t.shape) for n, t in _trained().items()}
    return state | {"1.num_batches_tracked": torch.tensor(1)}


def _attention() -> dict[str, Tensor]:
    """Buffers of the name `mask` that are no weight's."""
    alive = torch.ones(4, 4, dtype=torch.bool)
    return _trained() | {"4.mask": alive, "attention.mask": alive}


def _soft() -> dict[str, Tensor]:
    """Gates between 0 and 1, where a mask would be."""
    state = _trained()
    return state | {"4.weight_mask": 0.1 + 0.8 * torch.rand_like(state["4.weight"])}


@pytest.mark.parametrize("make", [_trained, _zero_biases, _one_counter, _attention, _soft])
@pytest.mark.parametrize("zeros", [False, True])
def test_a_state_dict_is_no_mask(
    tmp_path: Path, make: Callable[[], dict[str, Tensor]], zeros: bool
) -> None:
    with torch.random.fork_rng():
        state = make()
    _refused(_written(tmp_path / "net.pt", state), "net.pt holds no mask$", zeros=zeros)


def test_the_zeros_of_a_state_dict_are_those_of_its_matrices(tmp_path: Path) -> None:
    state = _zero_biases()
    state["0.weight"][0] = 0.0
    path = _written(tmp_path / "net.pt", {"state_dict": state})
    _refused(path, "its weights hold zeros: zeros = true$")
    assert mask_file.load(path, zeros=True) == Mask({"0.weight": state["0.weight"] != 0})


@pytest.mark.parametrize(
    ("payload", "match"),
    [
        ({}, "holds no mask$"),
        ({"state_dict": {}}, "holds no mask$"),
        ({"epoch": 3, "name": "net"}, "holds no mask$"),
        ({"format": 1}, "holds no mask$"),
        (
            {"format": 99, "mask": None},
            "has format 99, this version reads up to 1; install .* later$",
        ),
        ({"format": 1, "mask": {"shapes": {}}}, "is no whole mask; write it again$"),
        ([torch.ones(2)], "holds a list; need a dict of tensors$"),
        (torch.ones(2), "holds a Tensor; need a dict of tensors$"),
        ("mask", "holds a str; need a dict of tensors$"),
    ],
    ids=["empty", "empty inside", "no tensors", "bare", "newer", "half", "list", "tensor", "text"],
)
def test_what_holds_no_tensors_by_name_is_refused(tmp_path: Path, payload: Any, match: str) -> None:
    _refused(_written(tmp_path / "net.pt", payload), match)


def test_bits_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    packed = _mask(_net()).pack()
    short = {"format": 1, "mask": packed | {"bits": packed["bits"][:-5]}}
    _refused(_written(tmp_path / "short.pt", short), "is no whole mask; write it again$")


# files that are none


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pt", tmp_path / "mask.pt"
    mask_file.save(_mask(_net()), whole)
    content = whole.read_bytes()
    bits = mask_file.load(whole).pack()["bits"].numpy().tobytes()
    at = content.index(bits) + len(bits) // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    _refused(path, "is damaged or cut short; copy or write it again$")
    for length in (8, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        _refused(path, "is damaged or cut short; copy or write it again$")


@pytest.mark.parametrize("content", [b"", b"weight: 1 0 1\n", b"\x80\x02nonsense"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mask.pt").write_bytes(content)
    _refused(tmp_path / "mask.pt", "not a torch checkpoint")


def test_an_object_in_a_file_is_refused_and_never_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    mask = torch.tensor([True, False])
    for name, payload in {"alone": Trap(sprung), "among": {"w": mask, "x": Trap(sprung)}}.items():
        path = _written(tmp_path / f"{name}.pt", payload)
        _refused(path, "holds pickled Python objects")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap(sprung)))
    _refused(tmp_path / "plain.pt", "not a torch checkpoint")
    assert not sprung.exists()
    pickle.loads((tmp_path / "plain.pt").read_bytes())
    assert sprung.exists()  # the trap works


def test_a_whole_net_is_refused(tmp_path: Path) -> None:
    _refused(_written(tmp_path / "net.pt", _net()), "holds pickled Python objects")


def test_a_result_and_a_folder_are_refused(tmp_path: Path) -> None:
    census({"net": _lenet(0.2)}).save(tmp_path / "census.npz")
    _refused(tmp_path / "census.npz", "is a result; give the checkpoint it was made from$")
    _refused(tmp_path, "is a folder; give a file in it")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such file") as caught:
        mask_file.load(tmp_path / "none.pt")
    assert "\n" not in str(caught.value)


def test_a_compiled_and_distributed_net_has_two_prefixes(tmp_path: Path) -> None:
    mask = torch.tensor([[True, False]])
    state = {"_orig_mod.module.0.weight_orig": torch.ones(1, 2)}
    state |= {"_orig_mod.module.0.weight_mask": mask.float()}
    assert mask_file.load(_written(tmp_path / "net.pt", state)) == Mask({"0.weight": mask})


@pytest.mark.parametrize(
    "stray",
    [
        {"drop.mask": torch.tensor(1.0)},
        {"block.attn_mask": torch.ones(2, 2).tril()},
        {"bn.weight": torch.ones(3), "bn.bias": torch.zeros(3)},
        {"causal": torch.ones(2, 2).tril().bool(), "w": torch.ones(2, 2) / 3},
    ],
    ids=["scalar", "attention", "fresh norm", "causal"],
)
def test_other_zeros_and_ones_are_no_mask(tmp_path: Path, stray: dict[str, Any]) -> None:
    state = stray | {"fc.bias": torch.ones(2) / 3}
    path = _written(tmp_path / "net.pt", state)
    for zeros in (False, True):
        _refused(path, "holds no mask$", zeros=zeros)
