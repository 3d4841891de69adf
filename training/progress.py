"""Train one or several runs and what they depend on, with progress bars."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress

from sparsediag.checkpoint.labels import run_label
from sparsediag.checkpoint.run_folder import summarise
from sparsediag.data import datasets
from sparsediag.plotting import terminal
from training.config import Run
from training.dependencies import with_prerequisites
from training.loop import fit
from training.masks.lottery import Lottery
from training.metrics import Row
from training.outcome import outcome_line
from training.plan import describe_progress
from training.setup import finished
from training.task_graph import TaskGraph

LINE = 79  # characters
PLAIN: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False}


def fit_with_progress(
    run: Run, *, out: Path, device: str = "auto", quiet: bool = False, force: bool = False
) -> Path:
    """`fit`, with a heading and a bar on stderr for this run and for each that it depends on."""
    stages = with_prerequisites(run)
    with terminal.progress_bars(quiet=quiet) as bars:
        for i, stage in enumerate(stages):
            folder, again = out / "runs" / stage.id, force and stage == run
            if finished(folder) and not again:
                continue
            place = f"Training {i + 1} of {len(stages)}" if len(stages) > 1 else "Training"
            heading = f"{place}: {describe_stage(stage, run)}"
            _fit_with_bar(stage, heading, bars=bars, out=out, device=device, force=again)
            if stage != run:
                bars.console.print(outcome_line(summarise(folder)), **PLAIN)
    return out / "runs" / run.id / "best.pt"


def describe_stage(stage: Run, run: Run) -> str:
    """Return the label of a training that `run` needs, or of `run`; for a lottery, with its round.

    >>> run = Run.of({"data": "digits", "mask": {"method": "lottery", "density": 0.64}})
    >>> describe_stage(run.before()[0], run)
    'resnet18 digits lottery density 0.8 seed 0, round 1 of 2'
    """
    label = run_label(stage.table())
    if isinstance(stage.mask, Lottery) and isinstance(run.mask, Lottery):
        return f"{label}, round {stage.mask.rounds + 1} of {run.mask.rounds + 1}"
    return label if stage == run else f"{label}, needed by the next one"


def fit_all(
    runs: Sequence[Run],
    *,
    out: Path,
    device: str = "auto",
    jobs: int = 1,
    engine: str = "local",
    quiet: bool = False,
    force: bool = False,
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
        quiet: Show no progress.
        force: Train them again if they are finished, but not the runs that they depend on.

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
                fit_with_progress(run, out=out, device=device, quiet=quiet, force=force)
            except Exception as error:
                if len(runs) == 1:
                    raise
                errors[run.id] = error
            if len(runs) > 1 and not quiet:
                print(_outcome(run.id, runs, out), file=sys.stderr)
        return errors
    graph = TaskGraph({}, {})
    for run in runs:
        add_trainings(graph, run, out, device=device, force=force)
    with terminal.progress_bars(quiet=quiet) as bars:
        task = bars.add_task("trainings", total=len(graph.tasks))
        download_data(runs)

        def show(name: str) -> None:
            bars.advance(task)
            bars.console.print(_outcome(name, runs, out, jobs), highlight=False, soft_wrap=True)

        return graph.run(jobs=jobs, engine=engine, device=device, on_done=show)


def _outcome(name: str, runs: Sequence[Run], out: Path, jobs: int = 1) -> str:
    """Return a line about a training that has ended, and about those that are left."""
    folder = out / "runs" / name
    outcome = f"{name}: failed"
    if finished(folder):
        summary = summarise(folder)
        outcome = f"{summary['label']}: test accuracy {summary['test_accuracy']:.1%}"
    return f"{outcome}\n{describe_progress(runs, out, jobs=jobs)}"


def download_data(runs: Iterable[Run]) -> None:
    """Download and decode the data of all runs; `fit` reports what cannot be loaded."""
    for name, size in {(run.data, run.size) for run in runs}:
        with suppress(ValueError, OSError):
            datasets.load(name, size=size, normalise="none").decode()


def add_trainings(
    graph: TaskGraph, run: Run, out: Path, *, device: str = "auto", force: bool = False
) -> str:
    """Add a run and those it depends on to the graph; return its task, or "" if it is finished."""
    if run.id not in graph.tasks and (force or not finished(out / "runs" / run.id)):
        needed = {add_trainings(graph, earlier, out, device=device) for earlier in run.before()}
        graph.dependencies[run.id] = needed - {""}
        graph.tasks[run.id] = (partial(fit, run, out=out, device=device, force=force), ())
    return run.id if run.id in graph.tasks else ""


def _fit_with_bar(
    run: Run, heading: str, *, bars: Progress, out: Path, device: str, force: bool
) -> None:
    """Train a run with a bar; print the heading as soon as its first step is done."""
    place = heading.partition(":")[0]
    task = bars.add_task(place, total=run.optim.epochs)
    unprinted = iter([textwrap.fill(heading, LINE, break_on_hyphens=False)])

    def show(row: Row) -> None:
        bars.update(task, completed=row["epoch"])
        bars.console.print(
            f"epoch {row['epoch']:3}  lr {row['lr']:<7.2g} loss {row['train_loss']:.3f}  "
            f"train {row['train_accuracy']:6.1%}  val {row['val_accuracy']:6.1%}  "
            f"{row['images_per_second']:7,.0f} images/s",
            **PLAIN,
        )

    def name_part(part: str, done: int, steps: int) -> None:
        for text in unprinted:  # once
            bars.console.print(text, **PLAIN)
        bars.update(task, description=f"{part}, step {done} of {steps}")

    fit(run, out=out, device=device, on_epoch=show, progress=name_part, force=force)
    bars.update(task, completed=run.optim.epochs, description=place)
