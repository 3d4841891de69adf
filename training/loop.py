"""The training loop: a run goes in, its checkpoints come out; it resumes after an interruption."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import torch

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.checkpoint.run_folder import summarise
from sparsediag.core.atomic import atomic_write
from sparsediag.core.device import select_device
from sparsediag.core.evaluation import deterministic_cudnn
from sparsediag.core.progress import track
from sparsediag.data import datasets
from training.captured import CapturedStep
from training.config import Run
from training.loader import epoch_indices, load_batch
from training.metrics import (
    GradientFlow,
    Row,
    epoch_costs,
    evaluate,
    ghost_metrics,
    probe_metrics,
    sparsity_metrics,
    watch_steps,
)
from training.optim import epoch_at
from training.setup import Progress, finished, load_partial, start
from training.step import Step
from training.tweaks import Objective, cross_entropy

SAVE_EVERY = 10.0  # seconds between two checkpoints to resume from


class Diverged(ValueError):
    """The loss is not finite any more."""


def fit(
    run: Run,
    *,
    out: Path = Path("out"),
    device: str = "auto",
    on_epoch: Callable[[Row], None] | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> Path:
    """Train, and return the path of the checkpoint with the best validation accuracy.

    Everything is written to `out/runs/<id>/`: `best.pt`, `last.pt`, the checkpoints and the rows of
    `watch.jsonl` that the run asks for, `history.jsonl` with a line per epoch, `costs.jsonl` with
    times and memory, `run.toml`, and at the end `summary.json` and an empty file `finished`. A
    finished run is not trained again. An interrupted run resumes after its last saved epoch; on a
    CPU it ends with the same files, except for times, since the randomness of an epoch depends only
    on the seed and the epoch.

    Args:
        run: The run to train; runs that it depends on are trained first.
        out: Output folder.
        device: auto, cpu, cuda or cuda:N.
        on_epoch: Called after every epoch with its row of the history and its costs.
        progress: Called as `progress(part, done, all)` after every step of a part of the training:
            of "epoch 1" and so on, or of a tweak such as "rescale" before it.
        force: Train again from the first step. The files of an earlier training stay where they are
            until the new one is finished, and then move to `out/replaced/`. If it is interrupted,
            the next call with `force` resumes it.

    Raises:
        ValueError: If the run is invalid, or its loss is not finite any more (`Diverged`).

    >>> import tempfile
    >>> run = Run.load("digits", {"optim.epochs": 1, "mask.method": "random", "model.width": 2})
    >>> with tempfile.TemporaryDirectory() as out:
    ...     fit(run, out=Path(out)).name
    'best.pt'
    """
    folder = out / "runs" / run.id
    place = out / f"again-{run.id}" if force else folder
    if not finished(place):
        for earlier in run.before():
            fit(earlier, out=out, device=device)
        with run.compute.arithmetic(), deterministic_cudnn():
            training = Training(run, place, out, device=select_device(device), progress=progress)
            with training.step.watch or nullcontext():
                for epoch in range(len(training.history), run.optim.epochs):
                    row = training.train_epoch(epoch)
                    if on_epoch:
                        on_epoch(row)
                training.finish()
    if force:
        _move_into_place(place, folder, replaced=out / "replaced")
    return folder / "best.pt"


def _move_into_place(new: Path, folder: Path, *, replaced: Path) -> None:
    """Move the folder of a new training to its place; one that is there goes to `replaced`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        replaced.mkdir(exist_ok=True)
        changed = datetime.fromtimestamp(folder.stat().st_mtime)
        folder.rename(replaced / f"{folder.name}-{changed:%Y%m%d-%H%M%S-%f}")
    new.rename(folder)


class Training:
    """A training in progress: prepared, then trained epoch by epoch, then finished.

    Args:
        run: The run; those that it depends on must be finished.
        folder: Folder for the files of this run.
        out: Output folder, with those that it depends on.
        device: Device of the network and the data.
        progress: As of `fit`.

    Attributes:
        history: A row for every epoch that has been trained.
    """

    def __init__(
        self,
        run: Run,
        folder: Path,
        out: Path,
        *,
        device: torch.device,
        progress: Progress | None = None,
    ) -> None:
        begin = time.perf_counter()
        self.progress = progress
        self.run, self.device, self.folder = run, device, folder
        self.data = datasets.load(run.data, device=device, size=run.size, normalise=run.normalise)
        self.data.decode(progress and partial(progress, "images"))
        self.partial = load_partial(run, self.folder)
        self.start = start(
            run, self.data, out=out, device=device, partial=self.partial, progress=progress
        )
        self.net, self.history = self.start.net, self.start.history
        run.compute.set_memory_format(self.net, device)
        self.steps_per_epoch = math.ceil(len(self.data.train) / run.optim.batch_size)
        self.optimiser = run.optim.build(self.net)
        self.keeper = run.mask.keeper(
            self.net,
            self.start.mask,
            self.optimiser,
            steps=run.optim.epochs * self.steps_per_epoch,
            seed=run.seed,
            steps_taken=len(self.history) * self.steps_per_epoch,
        )
        self.best = (-1.0, 0.0)  # validation accuracy, and minus the loss for a tie
        if self.partial and self.partial.resume:
            run.optim.resume(self.optimiser, self.partial.resume["optimiser"])
            self.keeper.load_state_dict(self.partial.resume["keeper"])
            self.best = tuple(self.partial.resume["best"])
        self.probe = self.data.batches("train", images=run.record.probe_samples)
        forward = run.compute.build_forward(self.net, self.probe[0][0][: run.optim.batch_size])
        flow = GradientFlow(self.net, self.keeper.mask) if run.record.gradient_flow else None
        self.folder.mkdir(parents=True, exist_ok=True)
        watch = None
        if run.record.watch_every and len(self.history) < run.optim.epochs:
            watch = watch_steps(
                run.record,
                self.keeper,
                self.probe,
                self.folder / "watch.jsonl",
                steps=len(self.history) * self.steps_per_epoch,
                state=((self.partial and self.partial.resume) or {}).get("watch"),
            )
        self.step = Step(partial(load_batch, self.data), forward, self.keeper, flow, watch)
        self.captured = CapturedStep.on(device, self.step, compiled=run.compute.compile)
        with atomic_write(self.folder / "run.toml") as draft:
            draft.write_text(run.toml())
        self.last_save = time.monotonic()
        self.setup_seconds = time.perf_counter() - begin

    def train_epoch(self, epoch: int) -> Row:
        """Train for an epoch, measure, and save; return its row of the history and its costs."""
        start, run = time.perf_counter(), self.run
        rate, epochs = run.optim.rate(epoch), run.optim.epochs
        loss: Objective = cross_entropy
        self.step.epoch = epoch + 1
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        for name, tweak in run.tweaks.items():
            tweak.update(self.net, epoch, epochs)
            loss = tweak.loss(loss, epoch, epochs, self.start.tweak_states[name])
        key = (rate, *(tweak.phase(epoch, epochs) for tweak in run.tweaks.values()))
        report = self.progress and partial(self.progress, f"epoch {epoch + 1}")
        indices = track(epoch_indices(run, self.data, epoch), report, self.steps_per_epoch)
        means, finite = self.captured.epoch(indices, loss, key=key)
        speed = len(self.data.train) / (time.perf_counter() - start)
        with self.keeper.inference_weights():
            val_loss, val_accuracy = evaluate(self.net, self.data, self.data.validation)
            self._check_finite(epoch, means["objective"], val_loss, finite)
            row = {
                "epoch": epoch + 1,
                "lr": rate,
                **means,
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                **ghost_metrics(self.net),
                **sparsity_metrics(self.net),
                **(self.step.flow.row(self.step.steps) if self.step.flow else {}),
                **probe_metrics(run.record, self.net, self.keeper.mask, self.probe, epoch),
                **self.start.metrics,
            }
            self.start.metrics.clear()
            self.history.append(row)
            self._save(epoch)
        costs = epoch_costs(epoch + 1, speed, time.perf_counter() - start, self.device)
        costs["setup_seconds"], self.setup_seconds = self.setup_seconds, 0.0
        with (self.folder / "costs.jsonl").open("a") as file:
            file.write(json.dumps(costs) + "\n")
        return row | costs

    def finish(self) -> None:
        """Measure the test accuracy of the last and the best epoch, and mark the run finished."""
        if self.partial and self.partial.resume is None:  # interrupted just before the mark
            last = self.partial
        else:
            with self.keeper.inference_weights():
                last = self._checkpoint()
        best = Checkpoint.load(self.folder / "best.pt")
        for checkpoint in (last, best):
            self.net.load_state_dict(checkpoint.weights)
            row = last.history[checkpoint.step // self.steps_per_epoch - 1]
            row["test_loss"], row["test_accuracy"] = evaluate(self.net, self.data, self.data.test)
        row["best"] = True
        last.save(self.folder / "last.pt")
        replace(best, history=last.history).save(self.folder / "best.pt")
        self._write_history(last.history)
        with atomic_write(self.folder / "summary.json") as draft:
            draft.write_text(json.dumps(summarise(self.folder), indent=2) + "\n", encoding="utf-8")
        (self.folder / "finished").touch()

    def _check_finite(self, epoch: int, train_loss: float, val_loss: float, steps: int) -> None:
        """Raise `Diverged` if a loss is not finite; `steps` steps had a finite loss."""
        if math.isfinite(train_loss + val_loss):
            return
        finding = f"the validation loss is {val_loss} after epoch {epoch + 1}"
        if not math.isfinite(train_loss):
            finding = (
                f"the training loss is {train_loss} in epoch {epoch + 1} from step {steps + 1} on"
            )
        last_good = self.folder / "last.pt"
        raise Diverged(
            f"{finding}, at learning rate {self.run.optim.rate(epoch):g}; lower optim.lr. Last "
            f"good checkpoint: {last_good if last_good.exists() else 'none yet'}"
        )

    def _save(self, epoch: int) -> None:
        """Write the history, and the checkpoints that are due after an epoch."""
        row = self.history[-1]
        score = (row["val_accuracy"], -row["val_loss"])
        better = epoch >= self._first_candidate() and score > self.best
        if better:
            self.best = score
            self._checkpoint().save(self.folder / "best.pt")
        if epoch + 1 in self.run.record.checkpoint_epochs:
            self._checkpoint().save(self.folder / f"epoch-{epoch + 1:03}.pt")
        if better or time.monotonic() - self.last_save > SAVE_EVERY:  # never behind best.pt
            resume = {
                "optimiser": self.optimiser.state_dict(),
                "best": self.best,
                "keeper": self.keeper.state_dict(),
            }
            if self.step.watch:
                resume["watch"] = self.step.watch.state_dict()
            self._checkpoint(resume).save(self.folder / "last.pt")
            self.last_save = time.monotonic()
        self._write_history(self.history)

    def _first_candidate(self) -> int:
        """Return the first epoch that may be the best: at a lower rate, and without ghosts."""
        epochs = self.run.optim.epochs
        first_drop = epoch_at(min(self.run.optim.lr_milestones, default=0), epochs)
        plain_from = max([t.plain_from(epochs) for t in self.run.tweaks.values()], default=0)
        return min(max(first_drop, plain_from), epochs - 1)

    def _checkpoint(self, resume: Row | None = None) -> Checkpoint:
        return Checkpoint.of(
            self.net,
            mask=self.keeper.mask,
            model=self.run.model.name,
            options=self.start.options,
            data=self.run.data,
            run=json.loads(json.dumps(self.run.table())),
            step=len(self.history) * self.steps_per_epoch,
            steps=self.run.optim.epochs * self.steps_per_epoch,
            history=self.history,
            resume=resume,
        )

    def _write_history(self, history: list[Row]) -> None:
        with atomic_write(self.folder / "history.jsonl") as draft:
            draft.write_text("".join(json.dumps(row) + "\n" for row in history))
