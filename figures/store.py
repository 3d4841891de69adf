"""Store: where the trainings and results of the figures lie, and how a missing one is made."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from figures.measurement import Need
from figures.scales import Scale
from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.diagnostics import load_diagnostic
from sparsediag.diagnostics.result import Result
from sparsediag.diagnostics.spectrum import Spectrum
from sparsediag.diagnostics.traits import traits_of
from training.setup import finished


def path(need: Need, scale: Scale, out: Path) -> Path:
    """The file that holds what is needed, whether or not it is there yet."""
    run = scale.run(need.run)
    if need.diagnostic == "history":
        return out / "runs" / run.id / "history.jsonl"
    return out / "results" / run.id / f"{need.diagnostic}-{scale.key(need)}.npz"


def load(need: Need, scale: Scale, out: Path) -> Any:
    """The result, or the rows of the history."""
    file = path(need, scale, out)
    if need.diagnostic == "history":
        return [json.loads(line) for line in file.read_text().splitlines()]
    return Result.load(file)


def there(need: Need, scale: Scale, out: Path) -> bool:
    """Return whether the result is there, or the training of the history is finished."""
    file = path(need, scale, out)
    return finished(file.parent) if need.diagnostic == "history" else file.exists()


def measure(need: Need, scale: Scale, out: Path) -> None:
    """Make the result of a finished training."""
    run = scale.run(need.run)
    checkpoint = Checkpoint.load(out / "runs" / run.id / scale.kept(need))
    problem = checkpoint.problem(split=need.split, images=scale.images)
    options, file = scale.options(need), path(need, scale, out)
    unfinished = file.with_suffix(".unfinished")
    diagnostic = load_diagnostic(need.diagnostic)
    if "resume" in inspect.signature(diagnostic).parameters:
        options["resume"] = unfinished
    for keyword, read in traits_of(diagnostic).from_checkpoint.items():
        options[keyword] = read(checkpoint, split=need.split, images=scale.images)
    if need.along:
        options["along"] = Spectrum.load(path(need.along, scale, out))
    result: Result = diagnostic(problem, **options)
    result.save(file)
    unfinished.unlink(missing_ok=True)
