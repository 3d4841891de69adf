"""Plan: the trainings, measurements and pictures that are missing, and in which order."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from figures import items, store
from figures.measurement import Need
from figures.scales import Scale
from training import dependencies
from training.config import Run
from training.loop import fit
from training.task_graph import Work


@dataclass(frozen=True)
class Plan:
    """The tasks that some items need.

    Attributes:
        work: Trainings, measurements and drawings, each after what it needs.
        runs: The trainings among them, by id.
        measurements: The measurements among them, by the name of the task.
        pictures: The items to draw.
    """

    work: Work = field(default_factory=lambda: Work({}, {}))
    runs: dict[str, Run] = field(default_factory=dict)
    measurements: dict[str, Need] = field(default_factory=dict)
    pictures: list[str] = field(default_factory=list)


def plan(wanted: Sequence[str], scale: Scale, out: Path) -> Plan:
    """Return what is missing for the wanted items."""
    found = Plan()
    for name in wanted:
        if items.missing(name, scale, out) or not items.drawn(name, scale, out):
            needed = {_need(need, found, scale, out) for need in items.needs(name, scale).values()}
            found.work.tasks[f"draw {name}"] = (items.draw, (name, scale, out))
            found.work.after[f"draw {name}"] = needed - {""}
            found.pictures.append(name)
    return found


def _fit(run: Run, out: Path) -> None:
    """Train without a word of layers that a mask empties: the figures show what comes of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="training")
        fit(run, out=out)


def _need(need: Need, found: Plan, scale: Scale, out: Path) -> str:
    """Add a measurement that is missing, and what it needs; its task, or "" if it is there."""
    if store.there(need, scale, out):
        return ""
    run = scale.run(need.run)
    trained = dependencies.plan(run, out, found.work)
    for stage in dependencies.stages(run):
        if stage.id in found.work.tasks:
            found.runs[stage.id] = stage
            found.work.tasks[stage.id] = (_fit, (stage, out))
    if need.diagnostic == "history":
        return trained
    file = store.path(need, scale, out)
    name = f"{file.parent.name}/{file.stem}"
    if name not in found.work.tasks:
        before = {trained}
        if need.along:
            before.add(_need(need.along, found, scale, out))
        found.work.tasks[name] = (store.measure, (need, scale, out))
        found.work.after[name] = before - {""}
        found.measurements[name] = need
    return name
