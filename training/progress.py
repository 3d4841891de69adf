"""A training to look at: a bar with the time left, and the numbers of the last epoch."""

from __future__ import annotations

from pathlib import Path

from rich.progress import Progress

from sparsediag import terminal
from training.config import Run
from training.loop import fit
from training.records import Row


def watched(run: Run, *, out: Path, device: str = "auto") -> Path:
    """`fit`, with a bar on stderr for this run and for each that must be finished before it."""
    with terminal.bars() as bars:
        for stage in stages(run):
            path = _one(stage, bars=bars, out=out, device=device)
    return path


def stages(run: Run) -> list[Run]:
    """The runs that a run needs, first to last, and the run itself."""
    needed = [stage for earlier in run.before() for stage in stages(earlier)]
    return list({stage.id: stage for stage in [*needed, run]}.values())


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
