"""Files of trainings and results: their paths, reading them, and measuring what is missing."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from figures.measurement import Measurement
from figures.scales import Scale
from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.diagnostics import load_diagnostic
from sparsediag.diagnostics.result import Result
from sparsediag.diagnostics.spectrum import Spectrum
from sparsediag.diagnostics.traits import traits_of
from training.setup import finished


def result_path(measurement: Measurement, scale: Scale, out: Path) -> Path:
    """Return the file of a result, or of the history of a training."""
    run = scale.adapt(measurement.run)
    if measurement.diagnostic == "history":
        return out / "runs" / run.id / "history.jsonl"
    return out / "results" / run.id / f"{measurement.diagnostic}-{scale.key(measurement)}.npz"


def exists(measurement: Measurement, scale: Scale, out: Path) -> bool:
    """Return whether the result exists; a history only counts when the training is finished."""
    file = result_path(measurement, scale, out)
    return finished(file.parent) if measurement.diagnostic == "history" else file.exists()


def load(measurement: Measurement, scale: Scale, out: Path) -> Any:
    """Return the result, or the rows of the history."""
    file = result_path(measurement, scale, out)
    if measurement.diagnostic == "history":
        return [json.loads(line) for line in file.read_text().splitlines()]
    return Result.load(file)


def measure(measurement: Measurement, scale: Scale, out: Path) -> None:
    """Compute and save the result of a finished training."""
    run = scale.adapt(measurement.run)
    file = result_path(measurement, scale, out)
    checkpoint = Checkpoint.load(out / "runs" / run.id / scale.checkpoint_name(measurement))
    problem = checkpoint.problem(split=measurement.split, images=scale.images)
    options = scale.options(measurement)
    unfinished = file.with_suffix(".unfinished")
    diagnostic = load_diagnostic(measurement.diagnostic)
    if "resume" in inspect.signature(diagnostic).parameters:
        options["resume"] = unfinished
    for keyword, read in traits_of(diagnostic).from_checkpoint.items():
        options[keyword] = read(checkpoint, split=measurement.split, images=scale.images)
    if measurement.along:
        options["along"] = Spectrum.load(result_path(measurement.along, scale, out))
    result: Result = diagnostic(problem, **options)
    result.save(file)
    unfinished.unlink(missing_ok=True)
