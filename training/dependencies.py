"""The runs that a run depends on, and which of them are still to be trained."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from sparsediag.data import datasets
from training.config import Run
from training.loop import fit
from training.setup import finished
from training.task_graph import Work


def stages(run: Run) -> list[Run]:
    """The runs that a run needs, first to last, and the run itself."""
    needed = [stage for earlier in run.before() for stage in stages(earlier)]
    return list({stage.id: stage for stage in [*needed, run]}.values())


def fetch(runs: Iterable[Run]) -> None:
    """Read the data of runs once, where it has to be downloaded; what is wrong, a run will say."""
    for name in {run.data for run in runs}:
        with suppress(ValueError, OSError):
            datasets.load(name)


def plan(run: Run, out: Path, work: Work, *, device: str = "auto") -> str:
    """Add a run that is not finished to the work, and those it needs; its task, or "" if it is."""
    if run.id not in work.tasks and not finished(out / "runs" / run.id):
        needed = {plan(before, out, work, device=device) for before in run.before()}
        work.after[run.id] = needed - {""}
        work.tasks[run.id] = (partial(fit, run, out=out, device=device), ())
    return run.id if run.id in work.tasks else ""
