"""The trainings, measurements and pictures that are missing, as tasks that depend on each other."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from figures import registry, store
from figures.measurement import Measurement
from figures.scales import Scale
from training.config import Run
from training.dependencies import with_prerequisites
from training.loop import fit
from training.progress import add_trainings
from training.task_graph import TaskGraph


@dataclass(frozen=True)
class Plan:
    """The tasks that are needed for some items.

    Attributes:
        work: Trainings, measurements and drawings with their dependencies.
        runs: The trainings among them, by id.
        measurements: The measurements among them, by the name of the task.
        pictures: The items to draw.
    """

    work: TaskGraph = field(default_factory=lambda: TaskGraph({}, {}))
    runs: dict[str, Run] = field(default_factory=dict)
    measurements: dict[str, Measurement] = field(default_factory=dict)
    pictures: list[str] = field(default_factory=list)

    def seed(self, task: str) -> int:
        """Return the seed of a training or a measurement, and -1 for a picture."""
        if run := self.runs.get(task) or getattr(self.measurements.get(task), "run", None):
            return run.seed
        return -1


def plan(wanted: Sequence[str], scale: Scale, out: Path) -> Plan:
    """Return the tasks that are missing for the wanted items, in the order in which they start.

    Pictures come as soon as their results exist, those that need little first. Trainings and
    measurements go seed by seed, so that an interrupted call leaves whole seeds.
    """
    todo = Plan()
    for name in sorted(wanted, key=lambda name: len(registry.measurements(name, scale))):
        if registry.missing(name, scale, out) or not registry.is_drawn(name, scale, out):
            dependencies = {
                _add(measurement, todo, scale, out)
                for measurement in registry.measurements(name, scale).values()
            }
            todo.work.tasks[f"draw {name}"] = (registry.draw, (name, scale, out))
            todo.work.dependencies[f"draw {name}"] = dependencies - {""}
            todo.pictures.append(name)
    tasks = sorted(todo.work.tasks.items(), key=lambda task: todo.seed(task[0]))
    todo.work.tasks.clear()
    todo.work.tasks.update(tasks)
    return todo


def _add(measurement: Measurement, todo: Plan, scale: Scale, out: Path) -> str:
    """Add the tasks of a missing measurement; return the last task, or "" if none is missing."""
    if store.exists(measurement, scale, out):
        return ""
    run = scale.adapt(measurement.run)
    training_task = add_trainings(todo.work, run, out)
    for stage in with_prerequisites(run):
        if stage.id in todo.work.tasks:
            todo.runs[stage.id] = stage
            todo.work.tasks[stage.id] = (_fit, (stage, out))
    if measurement.diagnostic == "history":
        return training_task
    file = store.result_path(measurement, scale, out)
    name = f"{file.parent.name}/{file.stem}"
    if name not in todo.work.tasks:
        dependencies = {training_task}
        if measurement.along:
            dependencies.add(_add(measurement.along, todo, scale, out))
        todo.work.tasks[name] = (store.measure, (measurement, scale, out))
        todo.work.dependencies[name] = dependencies - {""}
        todo.measurements[name] = measurement
    return name


def _fit(run: Run, out: Path) -> None:
    """Train a run without the warning about layers that a mask empties: a figure shows them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="training")
        fit(run, out=out)
