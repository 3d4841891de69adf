"""Train one or several runs and what they depend on, with progress bars."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from rich.progress import Progress

from sparsediag.data import datasets
from sparsediag.plotting import terminal
from training.config import Run
from training.dependencies import with_prerequisites
from training.loop import fit
from training.metrics import Row
from training.plan import describe_progress
from training.setup import finished
from training.task_graph import TaskGraph


def fit_with_progress(run: Run, *, out: Path, device: str = "auto") -> Path:
    """`fit`, with a bar on stderr for this run and for each that it depends on."""
    with terminal.progress_bars() as bars:
        for needed in with_prerequisites(run):
            path = _fit_with_bar(needed, bars=bars, out=out, device=device)
    return path


def fit_all(
    runs: Sequence[Run],
    *,
    out: Path,
    device: str = "auto",
    jobs: int = 1,
    engine: str = "local",
) -> dict[str, BaseException]:
    """`fit` for several runs, `jobs` at a time, each in a process with its share of the cores.

    They share the device and the runs that they depend on. With one job on this machine, every
    epoch is shown.

    Args:
        runs: The runs.
        out: Output folder.
        device: auto, cpu, cuda or cuda:N.
        jobs: Trainings at a time.
        engine: Key of `training.executors.ENGINES`.

    Returns:
        The errors, by the id of the run that failed. Runs that depend on it are not trained; all
        others are finished.

    Raises:
        ValueError: If a process died.
    """
    if jobs == 1 and engine == "local":
        errors: dict[str, BaseException] = {}
        for run in runs:
            try:
                fit_with_progress(run, out=out, device=device)
            except Exception as error:
                if len(runs) == 1:
                    raise
                errors[run.id] = error
            if len(runs) > 1:
                print(_outcome(run.id, runs, out), file=sys.stderr)
        return errors
    download_data(runs)
    graph = TaskGraph({}, {})
    for run in runs:
        add_trainings(graph, run, out, device=device)
    with terminal.progress_bars() as bars:
        task = bars.add_task("trainings", total=len(graph.tasks))

        def show(name: str) -> None:
            bars.advance(task)
            bars.console.print(_outcome(name, runs, out, jobs), highlight=False, soft_wrap=True)

        return graph.run(jobs=jobs, engine=engine, device=device, on_done=show)


def _outcome(name: str, runs: Sequence[Run], out: Path, jobs: int = 1) -> str:
    """Return a line about a training that has ended, and about those that are left."""
    outcome = "finished" if finished(out / "runs" / name) else "failed"
    return f"{name}: {outcome}; {describe_progress(runs, out, jobs=jobs)}"


def download_data(runs: Iterable[Run]) -> None:
    """Download the data of all runs that is missing; `fit` reports what cannot be loaded."""
    for name in {run.data for run in runs}:
        with suppress(ValueError, OSError):
            datasets.load(name)


def add_trainings(graph: TaskGraph, run: Run, out: Path, *, device: str = "auto") -> str:
    """Add a run and those it depends on to the graph; return its task, or "" if it is finished."""
    if run.id not in graph.tasks and not finished(out / "runs" / run.id):
        needed = {add_trainings(graph, earlier, out, device=device) for earlier in run.before()}
        graph.dependencies[run.id] = needed - {""}
        graph.tasks[run.id] = (partial(fit, run, out=out, device=device), ())
    return run.id if run.id in graph.tasks else ""


def _fit_with_bar(run: Run, *, bars: Progress, out: Path, device: str) -> Path:
    name = run.id
    task = bars.add_task(name, total=run.optim.epochs)

    def show(row: Row) -> None:
        bars.update(task, completed=row["epoch"] + 1)
        bars.console.print(
            f"epoch {row['epoch'] + 1:3}  lr {row['lr']:<7.2g} loss {row['train_loss']:.3f}  "
            f"train {row['train_accuracy']:6.1%}  validation {row['val_accuracy']:6.1%}  "
            f"{row['images_per_second']:7,.0f} images/s",
            highlight=False,
            soft_wrap=True,
        )

    def name_part(part: str, done: int, steps: int) -> None:
        bars.update(task, description=f"{name}, {part}, step {done} of {steps}")

    path = fit(run, out=out, device=device, on_epoch=show, progress=name_part)
    bars.update(task, completed=run.optim.epochs, description=name)
    return path
