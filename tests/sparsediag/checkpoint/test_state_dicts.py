"""Weights are found in the files of other tools, whatever they are nested in."""

from __future__ import annotations

import copy
import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import BATCH, X, dense, load, make, masked, pruned, random_mask, write
from torch import Tensor, nn

from sparsediag import Checkpoint, CheckpointError
from sparsediag.checkpoint import mask_file


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("key", [None, "state_dict", "model", "net", "model_state_dict"])
@pytest.mark.parametrize("before", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_keys_and_wrappers(tmp_path: Path, key: str | None, before: str, old: bool) -> None:
    net, mask = dense(), random_mask(dense())
    state = {f"{before}{n}": t for n, t in pruned(copy.deepcopy(net), mask).state_dict().items()}
    payload = {"epoch": 3, "optimizer": {"lr": 0.1}, key: state} if key else state
    torch.save(payload, tmp_path / "net.pt", _use_new_zipfile_serialization=not old)
    checkpoint = Checkpoint.load(tmp_path / "net.pt")
    assert checkpoint.mask == mask
    assert checkpoint.made_by["file"] == ("state dict" + (f", under '{key}'" if key else ""))
    assert torch.equal(checkpoint.build(model=make)(X), masked(net, mask)(X))


@pytest.mark.parametrize("key", ["params", "model_state", "generator"])
def test_other_keys(tmp_path: Path, key: str) -> None:
    payload = {
        key: dense().state_dict(),
        "optimizer": {"state": {"4.weight": {"exp_avg": torch.ones(4, 12)}}},
        "rng": {"torch": torch.get_rng_state()},
        "step": torch.tensor(3.0),
    }
    checkpoint = load(tmp_path, payload)
    assert checkpoint.made_by == {"file": f"state dict, under '{key}'", "mask": "none"}
    assert torch.equal(checkpoint.build(model=make)(X), dense()(X))


def test_another_net_beside_it_is_told(tmp_path: Path) -> None:
    state, lines = dense().state_dict(), list[str]()
    ema = {n: t + 1 for n, t in state.items()}
    checkpoint = load(tmp_path, {"model_ema": ema, "model": state})
    checkpoint.problem(model=make, data=BATCH, device="cpu", note=lines.append)
    assert lines == ["mask: none", "file: state dict, under 'model'; not read: 'model_ema'"]
    message = refused(write(tmp_path / "gan.pt", {"generator": state, "discriminator": ema}))
    assert "several nets are in it, 'generator', 'discriminator'; save one of them" in message


def test_sparse_tensors_are_made_dense(tmp_path: Path) -> None:
    net = masked(dense(), random_mask(dense()))
    state = net.state_dict()
    state["4.weight"] = state["4.weight"].to_sparse()
    checkpoint = load(tmp_path, state)
    assert torch.equal(checkpoint.build(model=make)(X), net(X))


def test_an_average_of_weights(tmp_path: Path) -> None:
    net = torch.optim.swa_utils.AveragedModel(dense())
    checkpoint = load(tmp_path, net.state_dict())
    assert torch.equal(checkpoint.build(model=make)(X), dense()(X))


def test_safetensors(tmp_path: Path) -> None:
    safe = pytest.importorskip("safetensors.torch")
    net, mask = dense(), random_mask(dense())
    path = tmp_path / "net.safetensors"
    safe.save_file(pruned(copy.deepcopy(net), mask).state_dict(), path)
    checkpoint = Checkpoint.load(path)
    assert checkpoint.made_by["file"] == "safetensors"
    assert checkpoint.mask == mask == mask_file.load(path)
    assert torch.equal(checkpoint.build(model=make)(X), masked(net, mask)(X))
    path.write_bytes(path.read_bytes()[:-9])
    assert "is damaged or cut short" in refused(path)


@pytest.mark.filterwarnings("ignore")  # from the imports of Lightning
def test_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    net, mask = dense(), random_mask(dense())

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"lr": 0.1})
            self.model = pruned(copy.deepcopy(net), mask)
            self.criterion = nn.CrossEntropyLoss(weight=torch.ones(4))

        def forward(self, x: Tensor) -> Any:
            return self.model(x)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(accelerator="cpu", **quiet)
    trainer.strategy.connect(module := Module())
    trainer.save_checkpoint(tmp_path / "net.ckpt")
    checkpoint = Checkpoint.load(tmp_path / "net.ckpt")
    assert checkpoint.made_by["file"] == f"Lightning {lightning.__version__}, under 'state_dict'"
    built = checkpoint.build(
        model=make
    )  # the inner net: without `model.`, and the criterion's weight
    assert torch.equal(built(X), masked(net, mask)(X))
    problem = checkpoint.problem(model=make, data=BATCH, device="cpu")
    assert problem.mask == mask
    whole = checkpoint.problem(model=Module, data=BATCH, device="cpu")
    assert whole.value() == problem.value()
    assert list(whole.mask or ()) == [f"model.{name}" for name in mask]
    assert torch.equal(module(X), whole.outputs()[0])


def test_masks_alone_are_no_net(tmp_path: Path) -> None:
    mask = random_mask(dense())
    assert "masks and no weights; give it as --mask" in refused(
        write(tmp_path / "others.pt", dict(mask))
    )
    mask_file.save(mask, tmp_path / "ours.pt")
    assert "masks and no weights; give it as --mask" in refused(tmp_path / "ours.pt")


def test_files_of_known_trainings(tmp_path: Path) -> None:
    state, args = dense().state_dict(), Namespace(lr=np.float64(0.1), output=Path("/data"))
    averaged = {n: t + 1 for n, t in state.items()}
    files: dict[str, dict[str, Any]] = {
        "timm": {"state_dict": state, "args": args, "state_dict_ema": averaged, "version": 2},
        "torchvision": {"model": state, "optimizer": {"state": {0: averaged}}, "args": args},
        "fairseq": {
            "args": None,
            "cfg": {"task": args},
            "model": state,
            "extra_state": {"meters": [{"val": torch.tensor(1.0)}]},
            "last_optimizer_state": averaged,
        },
        "deepspeed": {"module": state, "param_shapes": [{"0.weight": torch.Size([3, 1, 3, 3])}]},
        "numpy": {n: t.numpy() for n, t in state.items()},
        "models": {"models": [state], "losses": [0.1]},
        "list": [state, {"state": {0: {"exp_avg": torch.ones(2, 2)}}}, 3],  # type: ignore[dict-item]
        "layers": {
            layer: {n[2:]: t for n, t in state.items() if n.startswith(layer)} for layer in "014"
        },
    }
    for name, payload in files.items():
        assert torch.equal(load(tmp_path, payload).build(model=make)(X), dense()(X)), name
    both = {"models": [state, averaged]}
    assert "several nets are in it, 'models0', 'models1'" in refused(write(tmp_path / "2.pt", both))


KINDS = ["csr", "qint8", "quint8", "float8_e4m3fn", "float8_e5m2"]


def stored(weight: Tensor, kind: str) -> tuple[Tensor, Tensor | None]:
    """Return a weight as torch stores it, and its values if they are the same."""
    scales = torch.full((4,), 0.01)
    ways: dict[str, Callable[[], tuple[Tensor, Tensor | None]]] = {
        "csr": lambda: (weight.to_sparse_csr(), weight),
        "qint8": lambda: (torch.quantize_per_tensor(weight, 0.01, 3, torch.qint8), None),
        "quint8": lambda: (
            torch.quantize_per_channel(weight, scales, scales * 0, 0, torch.quint8),
            None,
        ),
        "float8_e4m3fn": lambda: (weight.to(torch.float8_e4m3fn), None),
        "float8_e5m2": lambda: (weight.to(torch.float8_e5m2), None),
    }
    return ways[kind]()


@pytest.mark.filterwarnings("ignore")  # from quantisation
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_read_as_they_are_stored(tmp_path: Path, kind: str) -> None:
    net, lines = dense(), list[str]()
    weight, values = stored(net[4].weight.detach(), kind)
    if values is None:  # the numbers that were rounded when they were stored
        integers = weight.is_quantized and weight.int_repr().double()
        zero = 3 if kind == "qint8" else 0
        values = (integers - zero) * 0.01 if weight.is_quantized else weight.double()
        values = values.float()
    checkpoint = load(tmp_path, net.state_dict() | {"4.weight": weight})
    problem = checkpoint.problem(model=make, data=BATCH, device="cpu", note=lines.append)
    assert torch.allclose(problem.net[4].weight, values, rtol=1e-6, atol=0)
    assert problem.net[4].weight.dtype == torch.float32
    assert (f"file: 1 of {kind} became float32" in lines) == (kind != "csr")


@pytest.mark.filterwarnings("ignore")  # from quantisation
def test_packed_weights(tmp_path: Path) -> None:
    net = torch.ao.quantization.quantize_dynamic(dense(), {nn.Linear}, dtype=torch.qint8)
    message = refused(write(tmp_path / "net.pt", net.state_dict()))
    assert "'4._packed_params._packed_params' is packed by the quantisation of torch" in message


UNREADABLE = {
    "meta": (lambda: torch.ones(4, 12, device="meta"), "is on the meta device: .* no values"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2)]), "is a nested tensor"),
    "jagged": (
        lambda: torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged),
        "is a nested tensor",
    ),
    "packed": (
        lambda: torch.zeros(4, 6, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        "is float4_e2m1fn_x2, with which torch does not compute",
    ),
}


@pytest.mark.filterwarnings("ignore")  # from nested tensors
@pytest.mark.parametrize(("weight", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_tensor_without_numbers(tmp_path: Path, weight: Any, message: str) -> None:
    path = write(tmp_path / "net.pt", dense().state_dict() | {"4.weight": weight()})
    assert re.search(f"'4.weight' {message}", refused(path))
