"""Top eigenvalue and gradient flow while a network trains, in three kinds of loops."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sparsediag as sd

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(64) % 3
probe = [(X, Y)]
log: list[dict[str, float]] = []

pytestmark = pytest.mark.filterwarnings("ignore")  # of the imports of other packages


def in_a_loop(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X), Y).backward()
        optimizer.step()
        # the user's own lines
        problem = sd.Problem(net, probe)
        top = sd.spectrum(problem, top=1).eigenvalues[0]
        log.append({"eigenvalue": top, "flow": sd.gradflow(problem).flow.mean()})


def in_lightning(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> Any:
            return self.net(x)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optimizer

    # the user's own lines
    class Measure(lightning.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            problem = sd.Problem(module, probe)
            top = sd.spectrum(problem, top=1).eigenvalues[0]
            log.append({"eigenvalue": top, "flow": sd.gradflow(problem).flow.mean()})
            module.log_dict(log[-1])

    # and the trainer
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options = dict.fromkeys(silent, False) | {"max_epochs": 2, "accelerator": "cpu"}
    trainer = lightning.Trainer(callbacks=[Measure()], **options)
    trainer.fit(Module(), torch.utils.data.DataLoader([(X[i], Y[i]) for i in range(64)], 64))
    assert trainer.callback_metrics["eigenvalue"] == pytest.approx(log[-1]["eigenvalue"], rel=1e-5)


def in_hugging_face(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    transformers = pytest.importorskip("transformers")

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            scores = self.net(x)
            return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}

    rows = [{"x": X[i], "labels": Y[i]} for i in range(64)]

    # the user's own lines
    class Measure(transformers.TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            problem = sd.Problem(others["model"], [{"x": X, "labels": Y}])
            top = sd.spectrum(problem, top=1).eigenvalues[0]
            log.append({"eigenvalue": top, "flow": sd.gradflow(problem).flow.mean()})

    # and the trainer
    options = {"num_train_epochs": 2, "per_device_train_batch_size": 64, "use_cpu": True}
    options |= {"report_to": [], "save_strategy": "no", "disable_tqdm": True}
    arguments = transformers.TrainingArguments("trainer", **options)
    transformers.Trainer(
        Classifier(),
        arguments,
        train_dataset=rows,
        callbacks=[Measure()],
        optimizers=(optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)),
    ).train()


@pytest.mark.parametrize("train", [in_a_loop, in_lightning, in_hugging_face])
def test_eight_lines_measure_a_training_and_leave_it_as_it_is(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nets = []
    for measured in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.2), nn.Tanh(), nn.Linear(6, 3)).train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        log.clear()
        with monkeypatch.context() as patch:
            if not measured:  # the same training without its own lines
                for name in ("Problem", "spectrum", "gradflow"):
                    patch.setattr(sd, name, lambda *_, **__: Nothing())
            train(net, optimizer)
        nets.append(net)
    assert len(log) == 2
    assert all(np.isfinite(list(row.values())).all() and row["flow"] > 0 for row in log)
    expected = sd.spectrum(sd.Problem(nets[1], probe), top=1).eigenvalues[0]
    assert log[-1]["eigenvalue"] == pytest.approx(expected, rel=1e-4)
    assert all(torch.equal(*pair) for pair in zip(*(n.parameters() for n in nets), strict=True))


class Nothing:
    """What replaces a measurement: nothing is computed."""

    eigenvalues = flow = np.zeros(1)


@pytest.mark.parametrize("train", [in_a_loop, in_lightning, in_hugging_face])
def test_they_are_eight_lines(train: Any) -> None:
    lines = inspect.getsource(train).partition("# the user's own lines\n")[2].splitlines()
    end = next((i for i, line in enumerate(lines) if line.strip() == "# and the trainer"), None)
    assert 0 < len([line for line in lines[:end] if line.strip()]) <= 8
