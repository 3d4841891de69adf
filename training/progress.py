"""Progress of a training: a bar with the time left, and the numbers of each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from sparsediag.plotting import terminal
from training.config import Run
from training.dependencies import fetch, plan, stages
from training.loop import fit
from training.metrics import Row
from training.task_graph import Work


def watched(run: Run, *, out: Path, device: str = "auto") -> Path:
    """`fit`, with a bar on stderr for this run and for each that must be finished before it."""
    with terminal.progress_bars() as bars:
        for stage in stages(run):
            path = _one(stage, bars=bars, out=out, device=device)
    return path


def together(
    runs: Sequence[Run], *, out: Path, device: str = "auto", jobs: int = 1
) -> dict[str, BaseException]:
    """`fit` for several runs, `jobs` at a time, each in a process with its share of the cores.

    They share the device and the runs that they need. With one job, as `watched` shows each.

    Returns:
        What was wrong, by the id of the run that failed; a run that needed it is not trained. All
        others are finished.

    Raises:
        ValueError: If a process died.
    """
    errors: dict[str, BaseException] = {}
    if jobs == 1:
        for run in runs:
            try:
                watched(run, out=out, device=device)
            except (ValueError, OSError) as error:
                errors[run.id] = error
        return errors
    fetch(runs)
    work = Work({}, {})
    for run in runs:
        plan(run, out, work, device=device)
    with terminal.progress_bars() as bars:
        task = bars.add_task("trainings", total=len(work.tasks))
        return work.do(jobs=jobs, device=device, done=lambda _: bars.advance(task))


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
