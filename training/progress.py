"""A training to look at: a bar with the time left, and the numbers of the last epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from sparsediag import terminal
from training.config import Run
from training.loop import fit
from training.records import Row
from training.stages import plan, stages
from training.work import Work


def watched(run: Run, *, out: Path, device: str = "auto") -> Path:
    """`fit`, with a bar on stderr for this run and for each that must be finished before it."""
    with terminal.bars() as bars:
        for stage in stages(run):
            path = _one(stage, bars=bars, out=out, device=device)
    return path


def together(runs: Sequence[Run], *, out: Path, device: str = "auto", jobs: int = 1) -> list[Path]:
    """`fit` for several runs, `jobs` at a time, each in a process with its share of the cores.

    They share the device and the runs that they need. With one job, as `watched` shows each.

    Raises:
        ValueError: If a run cannot be or fails; the others are finished first.
    """
    if jobs == 1:
        return [watched(run, out=out, device=device) for run in runs]
    work = Work({}, {})
    for run in runs:
        plan(run, out, work, device=device)
    with terminal.bars() as bars:
        task = bars.add_task("trainings", total=len(work.tasks))

        def done(name: str) -> None:
            bars.advance(task)
            bars.console.print(name, highlight=False)

        errors = work.do(jobs=jobs, done=done)
    for name, error in errors.items():
        raise ValueError(f"{name}: {error}")
    return [out / "runs" / run.id / "best.pt" for run in runs]


def _one(run: Run, *, bars: Progress, out: Path, device: str) -> Path:
    task = bars.add_task(run.id, total=run.optim.epochs)

    def show(row: Row) -> None:
        bars.update(task, completed=row["epoch"] + 1)
        bars.console.print(
            f"epoch {row['epoch'] + 1:3}  lr {row['lr']:<7.2g} loss {row['train_loss']:.3f}  "
            f"train {row['train_accuracy']:6.1%}  validation {row['val_accuracy']:6.1%}  "
            f"{row['images_per_second']:7,.0f} images/s",
            highlight=False,
        )

    path = fit(run, out=out, device=device, on_epoch=show)
    bars.update(task, completed=run.optim.epochs)
    return path
