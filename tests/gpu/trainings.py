"""Trainings and measurements of `python -m figures --scale hour`, as far as time goes.

A finished one becomes a line in `kept.jsonl` of the folder that is written to; those there and
those in `tests/gpu/kept.jsonl` are not trained again. Weights are not kept, so a training that
stands on others begins with them where they are not on this machine; shortest first, therefore.
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

from figures import items, store
from figures.need import Need
from figures.plan import Plan, plan
from figures.scales import SCALES, Scale
from sparsediag.result import Result
from tests.gpu.place import Measurements, Place, Row, Skip
from training.config import Run
from training.loop import fit
from training.stages import stages
from training.start import finished

KEPT = Path(__file__).parent / "kept.jsonl"


class OutOfTime(Exception):
    """Raised between two epochs."""


def measurements(place: Place) -> Measurements:
    if place.data is None and not place.dry:
        yield "trainings", no_data
        return
    scale = scale_of(place)
    todo = plan(items.at(scale), scale, place.out)
    known = {row["run"] for file in (KEPT, place.out / "kept.jsonl") for row in read(file)}
    missing = [run for run in todo.runs.values() if key(run) not in known]
    yield "kept from earlier calls", lambda: {"trainings": len(known)}
    measured = {scale.run(need.run).id for need in todo.measurements.values()}
    missing.sort(key=lambda run: len(stages(run)))
    if place.dry:  # a training, and one with something to measure
        missing = missing[:1] + [run for run in missing[1:] if run.id in measured][:1]
    for run in missing:
        yield run.id, lambda run=run: trained(run, todo, scale, place)


def no_data() -> Row:
    raise Skip("they need DATA=folder:PATH")


def scale_of(place: Place) -> Scale:
    """That of the figures, on these images; a smaller one where it is but tried."""
    if place.dry:
        return replace(SCALES["smoke"], name="smoke, dry")
    scale = SCALES["hour"]
    return replace(scale, name="hour, gpu", data=dict.fromkeys(scale.data, place.data))


def trained(run: Run, todo: Plan, scale: Scale, place: Place) -> Row:
    """Train what the run stands on and itself, measure it, and keep it."""
    start = time.perf_counter()
    try:
        for stage in stages(run):
            _fit(stage, place)
    except OutOfTime:
        return {"status": "cut", "note": "out of time after some epochs"}
    took = time.perf_counter() - start
    history = [json.loads(line) for line in _file(run, place, "history.jsonl")]
    kept = {
        "run": key(run),
        "table": run.table() | {"data": _name(run)},
        "history": history,
        "costs": [json.loads(line) for line in _file(run, place, "costs.jsonl")],
        "results": {},
        "seconds": took,
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(place.device) if place.cuda else "cpu",
    }
    _keep(kept, place)  # before what may be cut off
    for name, need in _needs(run, todo, scale):
        if place.left <= 0:
            break
        store.measure(need, scale, place.out)
        kept["results"][name] = small(store.load(need, scale, place.out))
        _keep(kept, place)
    accuracy = next(row["test_accuracy"] for row in history if row.get("best"))
    return {"test accuracy": accuracy, "results": len(kept["results"]), "training s": took}


def _fit(run: Run, place: Place) -> None:
    def watch(row: Row) -> None:
        if place.left <= 0 and row["epoch"] + 1 < run.optim.epochs:
            raise OutOfTime

    if not finished(place.out / "runs" / run.id):
        with warnings.catch_warnings(action="ignore"):
            fit(run, out=place.out, device=str(place.device), on_epoch=watch)


def _needs(run: Run, todo: Plan, scale: Scale) -> Iterator[tuple[str, Need]]:
    """What the figures measure of a run, spectra before what is along them."""
    found = [(n, need) for n, need in todo.measurements.items() if scale.run(need.run) == run]
    yield from sorted(found, key=lambda pair: pair[1].along is not None)


def small(result: Result) -> dict[str, Any]:
    """The result without its long arrays."""
    return {k: v for k, v in result.json().items() if len(json.dumps(v)) < 4_000}


def key(run: Run) -> str:
    """The identity of a run, wherever its images lie: by the name of their folder."""
    return replace(run, data=_name(run)).id


def _name(run: Run) -> str:
    return run.data.removeprefix("folder:").rstrip("/").rpartition("/")[2]


def read(file: Path) -> list[dict[str, Any]]:
    """The trainings in a file; of one that is there twice, what came last."""
    lines = file.read_text().splitlines() if file.exists() else []
    return list({row["run"]: row for row in map(json.loads, lines)}.values())


def _keep(row: dict[str, Any], place: Place) -> None:
    with (place.out / "kept.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def _file(run: Run, place: Place, name: str) -> list[str]:
    return (place.out / "runs" / run.id / name).read_text().splitlines()
