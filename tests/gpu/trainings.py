"""Trainings and measurements of `python -m figures --scale hour`, as far as time allows.

A finished run becomes a line of `kept.jsonl` in the output folder. Runs there and in
`tests/gpu/kept.jsonl` are not trained again. Weights are not kept, so a run that needs others
trains them first unless they are on this machine; therefore runs with few prerequisites come first.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from figures import registry, store
from figures.measurement import Measurement
from figures.plan import Plan, plan
from figures.scales import SCALES, Scale
from sparsediag.diagnostics.result import Result
from tests.gpu.settings import Measurements, Row, Settings, Skip
from training.config import Run
from training.dependencies import with_prerequisites
from training.loop import fit
from training.setup import finished

KEPT = Path(__file__).parent / "kept.jsonl"


class OutOfTime(Exception):
    """Raised between two epochs when time is up."""


def measurements(settings: Settings) -> Measurements:
    if settings.data is None and not settings.dry:
        yield "trainings", no_data
        return
    scale = scale_of(settings)
    todo = plan(registry.at_scale(scale), scale, settings.out)
    known = {row["run"] for file in (KEPT, settings.out / "kept.jsonl") for row in read(file)}
    missing = [run for run in todo.runs.values() if key(run) not in known]
    yield "kept from earlier calls", lambda: {"trainings": len(known)}
    measured = {scale.adapt(need.run).id for need in todo.measurements.values()}
    missing.sort(key=lambda run: len(with_prerequisites(run)))
    if settings.dry:  # a training, and one with something to measure
        missing = missing[:1] + [run for run in missing[1:] if run.id in measured][:1]
    for run in missing:
        yield run.id, lambda run=run: trained(run, todo, scale, settings)


def no_data() -> Row:
    raise Skip("they need DATA=folder:PATH")


def scale_of(settings: Settings) -> Scale:
    """Return the scale "hour" on these images; "smoke" in a dry call."""
    if settings.dry:
        return replace(SCALES["smoke"], name="smoke, dry")
    scale = SCALES["hour"]
    return replace(scale, name="hour, gpu", data=dict.fromkeys(scale.data, settings.data))


def trained(run: Run, todo: Plan, scale: Scale, settings: Settings) -> Row:
    """Train the prerequisites of a run and the run, measure it, and keep the results."""
    start = time.perf_counter()
    try:
        for stage in with_prerequisites(run):
            _fit(stage, settings)
    except OutOfTime:
        return {"status": "cut", "note": "out of time after some epochs"}
    took = time.perf_counter() - start
    history = [json.loads(line) for line in _file(run, settings, "history.jsonl")]
    kept = {
        "run": key(run),
        "table": run.table() | {"data": _name(run)},
        "history": history,
        "costs": [json.loads(line) for line in _file(run, settings, "costs.jsonl")],
        "results": {},
        "seconds": took,
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(settings.device) if settings.cuda else "cpu",
    }
    _keep(kept, settings)  # before what may be cut off
    for name, need in _needs(run, todo, scale):
        if settings.left <= 0:
            break
        store.measure(need, scale, settings.out)
        kept["results"][name] = small(store.load(need, scale, settings.out))
        _keep(kept, settings)
    accuracy = next(row["test_accuracy"] for row in history if row.get("best"))
    return {"test accuracy": accuracy, "results": len(kept["results"]), "training s": took}


def _fit(run: Run, settings: Settings) -> None:
    def watch(row: Row) -> None:
        if settings.left <= 0 and row["epoch"] < run.optim.epochs:
            raise OutOfTime

    if not finished(settings.out / "runs" / run.id):
        with warnings.catch_warnings(action="ignore"):
            fit(run, out=settings.out, device=str(settings.device), on_epoch=watch)


def _needs(run: Run, todo: Plan, scale: Scale) -> Iterator[tuple[str, Measurement]]:
    """Yield the measurements of a run that figures need, spectra first."""
    found = [(n, need) for n, need in todo.measurements.items() if scale.adapt(need.run) == run]
    yield from sorted(found, key=lambda pair: pair[1].along is not None)


def small(result: Result) -> dict[str, Any]:
    """Return the result without its long arrays."""
    return {k: v for k, v in result.json().items() if len(json.dumps(v)) < 4_000}


def key(run: Run) -> str:
    """Return an id of the run that does not depend on where the folder of images is."""
    return replace(run, data=_name(run)).id


def _name(run: Run) -> str:
    return run.data.removeprefix("folder:").rstrip("/").rpartition("/")[2]


def read(file: Path) -> list[dict[str, Any]]:
    """Return the runs in a file; the last line of each counts."""
    lines = file.read_text().splitlines() if file.exists() else []
    return list({row["run"]: row for row in map(json.loads, lines)}.values())


def _keep(row: dict[str, Any], settings: Settings) -> None:
    with (settings.out / "kept.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def _file(run: Run, settings: Settings, name: str) -> list[str]:
    return (settings.out / "runs" / run.id / name).read_text().splitlines()
