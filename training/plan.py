"""The state of several trainings: which are finished, and how much time is left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sparsediag.checkpoint.labels import run_label, run_labels
from training.config import Run
from training.dependencies import with_prerequisites
from training.setup import finished


def describe_plan(runs: Sequence[Run], out: Path, *, jobs: int = 1) -> str:
    """Return lines with the state of each run, and of each that is trained for others."""
    labels = run_labels([run.table() for run in runs])
    needed = [run for run in _with_all_prerequisites(runs) if run not in runs]
    labels += [f"{run_label(run.table())} (others need it)" for run in needed]
    lines = [
        f"  {_state(run, out):<12} {label}"
        for run, label in zip([*runs, *needed], labels, strict=True)
    ]
    return "\n".join([f"{len(runs)} runs; {describe_progress(runs, out, jobs=jobs)}", *lines])


def describe_progress(runs: Sequence[Run], out: Path, *, jobs: int = 1) -> str:
    """Return how many trainings are finished, and how long the others will take.

    The estimate is the mean time of an epoch that is done, with its share of the time before the
    first one; without any there is none.
    """
    trainings = _with_all_prerequisites(runs)
    seconds = [list(_seconds(run, out).values()) for run in trainings]
    missing = [
        0 if finished(out / "runs" / run.id) else max(0, run.optim.epochs - len(done))
        for run, done in zip(trainings, seconds, strict=True)
    ]
    count = sum(finished(out / "runs" / run.id) for run in trainings)
    text = f"{count} of {len(trainings)} trainings are finished"
    if any(missing) and any(seconds):
        mean = sum(map(sum, seconds)) / sum(map(len, seconds))
        text += f", about {sum(missing) * mean / jobs / 60:.1f} min left"
    return text


def _with_all_prerequisites(runs: Sequence[Run]) -> list[Run]:
    return list(dict.fromkeys(needed for run in runs for needed in with_prerequisites(run)))


def _state(run: Run, out: Path) -> str:
    if finished(out / "runs" / run.id):
        return "finished"
    epochs = len(_seconds(run, out))
    return f"{epochs} of {run.optim.epochs} epochs" if epochs else "to train"


def _seconds(run: Run, out: Path) -> dict[int, float]:
    """Return the time of each epoch that was trained, the first one with that of the set-up."""
    file = out / "runs" / run.id / "costs.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {row["epoch"]: row["seconds"] + row.get("setup_seconds", 0) for row in rows}
