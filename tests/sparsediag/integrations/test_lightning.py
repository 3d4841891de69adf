"""The callback in Lightning's own Trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from watched import Batch, cnn, half, images, recipe

from training.keeper import MaskedOptimizer

lightning = pytest.importorskip("lightning")
callback = pytest.importorskip("sparsediag.integrations.lightning")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: few workers, no validation


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = cnn()

    def training_step(self, batch: Batch, _: int) -> Any:
        if batch[0].isnan().any():
            raise RuntimeError("a sample is nan")
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)


def fit(folder: Path, batches: list[Batch], **options: Any) -> Module:
    """Train in three lines of the user's own: import, callback, Trainer."""
    module = Module()
    watched = [callback.WatchCallback(mask=half(module), **options)] if options else []
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=lightning.pytorch.loggers.CSVLogger(folder),
        accumulate_grad_batches=2,
        callbacks=watched,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    return module


def test_rows_and_the_same_weights(tmp_path: Path) -> None:
    file, batches = tmp_path / "watch.jsonl", [images(step) for step in range(4)]
    watched = fit(tmp_path, batches, every=2, file=file)
    assert not any(m._forward_pre_hooks for m in watched.modules())
    plain = fit(tmp_path / "plain", batches)
    assert all(map(torch.equal, watched.parameters(), plain.parameters()))
    _, *lines = map(json.loads, file.read_text().splitlines())
    rows = [line for line in lines if "note" not in line]
    assert [(row["step"], row["epoch"]) for row in rows] == [(2, 0), (4, 1)]
    entries = {"loss", "lr", "gradient/live", "update/kept", "activations/zeros"}
    assert rows[0].keys() >= entries
    header, *lines = next(tmp_path.glob("**/metrics.csv")).read_text().splitlines()
    assert entries <= set(header.split(","))
    assert len(lines) == 2


def test_hooks_end_with_an_exception(tmp_path: Path) -> None:
    broken = [images(0), (torch.full((8, 1, 6, 6), torch.nan), images(0)[1])]
    trained: list[Module] = []
    original = Module.__init__

    def remember(self: Module) -> None:
        original(self)
        trained.append(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="nan"):
        patch.setattr(Module, "__init__", remember)
        fit(tmp_path, broken, every=1, file=None)
    assert not any(m._forward_pre_hooks for m in trained[0].modules())


def test_the_recipe_that_keeps_a_net_sparse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = Module()
    mask = half(module)
    before = {name: module.get_parameter(name).detach() * m for name, m in mask.items()}
    names = {"lightning": lightning, "WatchCallback": callback.WatchCallback}
    options = "max_epochs=1, accelerator='cpu', logger=False, enable_checkpointing=False, "
    options += "enable_progress_bar=False, enable_model_summary=False, "
    text = recipe("lightning.Callback").replace("every=100", "every=1")
    space: dict[str, Any] = {**names, "MaskedOptimizer": MaskedOptimizer, "mask": mask}
    exec(text.replace("lightning.Trainer(", f"lightning.Trainer({options}"), space)
    batches = [images(step) for step in range(3)]
    space["trainer"].fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    assert all(bool((module.get_parameter(n)[~m] == 0).all()) for n, m in mask.items())
    assert not any(torch.equal(module.get_parameter(n), w) for n, w in before.items())
    _, *rows = [json.loads(line) for line in Path("watch.jsonl").read_text().splitlines()]
    assert [row["mask/dead_not_zero"] for row in rows if "mask/density" in row] == [0, 0, 0]
