"""Weights are found in the files of other tools, whatever they are nested in."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

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
