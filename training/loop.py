"""The training loop: a run goes in, its checkpoints come out; it resumes where it stopped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.atomic import atomic_write
from sparsediag.core.device import select_device
from sparsediag.data import datasets
from sparsediag.data.datasets import Data
from training.captured import Captured
from training.compute import repeatable
from training.config import Run
from training.loader import load, picks
from training.metrics import Flow, Row, costs, evaluate, ghosts, instruments, sparsity
from training.schedule import epoch_at
from training.setup import finished, load_partial, start
from training.step import Step
from training.tweaks import Objective, cross_entropy

SAVE_EVERY = 10.0  # seconds between two checkpoints to go on from


class Diverged(ValueError):
    """The loss is no longer a number."""


def fit(
    run: Run,
    *,
    out: Path = Path("out"),
    device: str = "auto",
    on_epoch: Callable[[Row], None] | None = None,
) -> Path:
    """Train, and return the path of the checkpoint with the best validation accuracy.

    Everything is written to `out/runs/<id>/`: `best.pt`, `last.pt`, the checkpoints that the run
    asks for, `history.jsonl` with one line an epoch, `costs.jsonl` with times and memory,
    `run.toml`, and at the end an empty file `finished`. A finished run is not trained again; an
    interrupted one goes on from its last saved epoch, and ends with the same files (but for the
    costs) on a CPU, since all randomness of an epoch comes from the seed and the epoch.

    Args:
        run: What to train.
        out: Where to write.
        device: auto, cpu, cuda or cuda:N.
        on_epoch: Called after every epoch with its row of the history and its costs.

    Raises:
        ValueError: If the run cannot be, or its loss stops being a number (`Diverged`).

    >>> import tempfile
    >>> run = Run.load("digits", {"optim.epochs": 1, "mask.method": "random", "model.width": 2})
    >>> with tempfile.TemporaryDirectory() as out:
    ...     fit(run, out=Path(out)).name
    'best.pt'
    """
    folder = out / "runs" / run.id
    if finished(folder):
        return folder / "best.pt"
    for earlier in run.before():
        fit(earlier, out=out, device=device)
    with run.compute.arithmetic(), repeatable():
        return _fit(run, out=out, folder=folder, where=select_device(device), on_epoch=on_epoch)


def _fit(
    run: Run,
    *,
    out: Path,
    folder: Path,
    where: torch.device,
    on_epoch: Callable[[Row], None] | None,
) -> Path:
    data = datasets.load(run.data, device=where)
    kept = load_partial(run, folder)
    begun = start(run, data, out=out, device=where, kept=kept)
    net, history = begun.net, begun.history
    run.compute.place(net, where)
    probe = data.batches("train", images=run.record.probe_samples)
    epochs = run.optim.epochs
    steps_an_epoch = math.ceil(len(data.train) / run.optim.batch_size)
    optimiser = run.optim.build(net)
    keeper = run.mask.keeper(
        net,
        begun.mask,
        optimiser,
        steps=epochs * steps_an_epoch,
        seed=run.seed,
        taken=len(history) * steps_an_epoch,
    )
    # the best epoch is sought where every run is at a lower rate and no ghost is left
    first_drop = epoch_at(min(run.optim.lr_milestones, default=0), epochs)
    plain_from = max([t.over(epochs) for t in run.tweaks.values()], default=0)
    choose_from = min(max(first_drop, plain_from), epochs - 1)

    def checkpoint(resume: Row | None = None) -> Checkpoint:
        return Checkpoint.of(
            net,
            mask=keeper.mask,
            model=run.model.name,
            options=begun.options,
            data=run.data,
            run=json.loads(json.dumps(run.table())),
            step=len(history) * steps_an_epoch,
            steps=epochs * steps_an_epoch,
            history=history,
            resume=resume,
        )

    if kept and kept.resume is None:  # it was stopped between its last file and its mark
        _finish(folder, net, data, kept)
        return folder / "best.pt"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "run.toml") as draft:
        draft.write_text(run.toml())
    best = (-1.0, 0.0)  # validation accuracy, and minus the loss for a tie
    if kept and kept.resume:
        run.optim.resume(optimiser, kept.resume["optimiser"])
        keeper.load(kept.resume["keeper"])
        best = tuple(kept.resume["best"])

    forward = run.compute.forward(net, probe[0][0][: run.optim.batch_size])
    flow = Flow(net, keeper.mask) if run.record.gradient_flow else None
    step = Step(partial(load, data), forward, keeper, flow)
    captured = Captured.on(where, step, compiled=run.compute.compile)
    saved = time.monotonic()
    for epoch in range(len(history), epochs):
        began = time.perf_counter()
        loss: Objective = cross_entropy
        for name, tweak in run.tweaks.items():
            tweak.update(net, epoch, epochs)
            loss = tweak.loss(loss, epoch, epochs, begun.kept[name])
        for group in optimiser.param_groups:
            group["lr"] = run.optim.rate(epoch)
        phases = [tweak.phase(epoch, epochs) for tweak in run.tweaks.values()]
        train_loss, train_accuracy, fine = captured.epoch(
            picks(run, data, epoch), loss, key=(run.optim.rate(epoch), *phases)
        )
        speed = len(data.train) / (time.perf_counter() - began)
        with keeper.inference_weights():
            val_loss, val_accuracy = evaluate(net, data, data.validation)
            if not math.isfinite(train_loss + val_loss):
                last_good = folder / "last.pt"
                what = (
                    f"the validation loss is {val_loss} after epoch {epoch}"
                    if math.isfinite(train_loss)
                    else f"the training loss is {train_loss} in epoch {epoch} from step {fine} on"
                )
                raise Diverged(
                    f"{what}, at learning rate {run.optim.rate(epoch):g}; lower optim.lr. Last "
                    f"good checkpoint: {last_good if last_good.exists() else 'none yet'}"
                )
            history.append(
                {
                    "epoch": epoch,
                    "lr": run.optim.rate(epoch),
                    "train_loss": train_loss,
                    "train_accuracy": train_accuracy,
                    "val_loss": val_loss,
                    "val_accuracy": val_accuracy,
                    **ghosts(net),
                    **sparsity(net),
                    **(flow.row(step.steps) if flow else {}),
                    **instruments(run.record, net, keeper.mask, probe, epoch),
                }
            )
            better = epoch >= choose_from and (val_accuracy, -val_loss) > best
            if better:
                best = (val_accuracy, -val_loss)
                checkpoint().save(folder / "best.pt")
            if epoch + 1 in run.record.checkpoint_epochs:
                checkpoint().save(folder / f"epoch-{epoch + 1:03}.pt")
            if better or time.monotonic() - saved > SAVE_EVERY:  # never behind the best file
                resume = {
                    "optimiser": optimiser.state_dict(),
                    "best": best,
                    "keeper": keeper.state(),
                }
                checkpoint(resume).save(folder / "last.pt")
                saved = time.monotonic()
            _write(history, folder)
            cost = costs(epoch, speed, time.perf_counter() - began, where)
            with (folder / "costs.jsonl").open("a") as file:
                file.write(json.dumps(cost) + "\n")
            if on_epoch:
                on_epoch(history[-1] | cost)

    with keeper.inference_weights():
        _finish(folder, net, data, checkpoint())
    return folder / "best.pt"


def _finish(folder: Path, net: nn.Module, data: Data, last: Checkpoint) -> None:
    """Test accuracy of the last and of the best epoch; the mark of a finished run comes last."""
    best = Checkpoint.load(folder / "best.pt")
    steps_an_epoch = last.step // len(last.history)
    for kept in (last, best):
        net.load_state_dict(kept.weights)
        row = last.history[kept.step // steps_an_epoch - 1]
        row["test_loss"], row["test_accuracy"] = evaluate(net, data, data.test)
    row["best"] = True
    last.save(folder / "last.pt")
    replace(best, history=last.history).save(folder / "best.pt")
    _write(last.history, folder)
    (folder / "finished").touch()


def _write(history: list[Row], folder: Path) -> None:
    with atomic_write(folder / "history.jsonl") as draft:
        draft.write_text("".join(json.dumps(row) + "\n" for row in history))
