"""Cost of the items at a scale, estimated before anything starts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import torch

from figures import registry
from figures.plan import Plan
from figures.scales import Scale
from sparsediag import models
from sparsediag.data.datasets import DATASETS
from training.config import Model, Run
from training.dependencies import with_prerequisites

# Operations per second that a GPU is assumed to sustain in training: a ResNet-18 with 1.1 GFLOP per
# image at 10 s per epoch of CIFAR. A guess for planning; measure yours with one training.
SUSTAINED = 1.5e13
CORE = 1e10  # likewise of one slow CPU core: 100 steps of a ResNet-18 of width 8 in 3.5 s on digits
TRAIN_SHARE = 0.9  # the rest of the images is for validation
# number of training images and their size; other data is assumed to be like CIFAR-10
CIFAR, MNIST = (50_000, 32), (60_000, 28)
SIZES = {
    "digits": (1300, 8),
    "clutter": (6000, 12),
    "mnist": MNIST,
    "fashion_mnist": MNIST,
    "tinyimagenet": (100_000, 64),
}
# durations relative to a training of ten epochs
MEASUREMENT_WEIGHT, DRAWING_WEIGHT = 0.6, 0.3


def operations(run: Run) -> float:
    """Return the floating-point operations of a training; pruned weights count as well."""
    images, _ = SIZES.get(run.data, CIFAR)
    model = json.dumps(asdict(replace(run.model, activation="relu")))
    return 3.0 * _forward_operations(model, run.data) * TRAIN_SHARE * images * run.optim.epochs


@cache
def _forward_operations(model: str, data: str) -> float:
    """Return the operations of a network, described as JSON, on one image."""
    from torch.utils.flop_counter import FlopCounterMode

    dataset = DATASETS.get(data) or DATASETS["cifar10"]
    channels, (_, size) = len(dataset.moments), SIZES.get(data, CIFAR)
    description = Model(**json.loads(model))
    options = {"classes": dataset.classes, "channels": channels, "size": size}
    with torch.device("meta"):
        net = models.build(description.name, **description.keywords(), **options)
        image = torch.empty(1, channels, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(image)
    return float(counter.get_total_flops())


def gpu_hours(runs: Iterable[Run]) -> float:
    """Return the estimated hours that trainings take on a GPU."""
    return sum(map(operations, runs)) / SUSTAINED / 3600


def weight(task: str, todo: Plan) -> float:
    """Return the rough duration of a task relative to others, for the progress bar."""
    if run := todo.runs.get(task):
        factor = 1 + len(run.tweaks) / 3 + 4 * bool(run.record.eigenvalue_every)
        return run.optim.epochs / 10 * factor
    return MEASUREMENT_WEIGHT if task in todo.measurements else DRAWING_WEIGHT


def trainings(name: str, scale: Scale) -> dict[str, Run]:
    """Return all trainings that an item depends on, by id."""
    return {
        stage.id: stage
        for measurement in registry.measurements(name, scale).values()
        for stage in with_prerequisites(scale.adapt(measurement.run))
    }


def summary(wanted: Sequence[str], scale: Scale) -> str:
    """Return a line per item: its trainings, those new to it, and their GPU hours."""
    lines = [f"{'item':18} {'trainings':>9} {'new':>6} {'GPU hours':>10}"]
    seen: dict[str, Run] = {}
    for name in wanted:
        runs = trainings(name, scale)
        new = {key: run for key, run in runs.items() if key not in seen}
        seen |= new
        lines.append(f"{name:18} {len(runs):9} {len(new):6} {gpu_hours(new.values()):10.1f}")
    lines.append(f"{'together':18} {'':9} {len(seen):6} {gpu_hours(seen.values()):10.1f}")
    nets = Counter(f"{run.model.name} on {run.data}" for run in seen.values())
    lines.append("; ".join(f"{count} {net}" for net, count in nets.most_common()))
    lines.append(
        f"GPU hours of the trainings alone, assuming {SUSTAINED / 1e12:.0f} TFLOP/s; the log of a "
        "training shows the images/s of your GPU"
    )
    hours = sum(map(operations, seen.values())) / CORE / 3600
    lines.append(
        f"on CPU cores {hours:,.1f} core hours, assuming {CORE / 1e9:.0f} GFLOP/s for each"
    )
    return "\n".join(lines)


def listing(wanted: Sequence[str], todo: Plan, scale: Scale, out: Path) -> str:
    """Return every missing task, and for each item what exists and what is missing."""
    lines = [f"missing  training  {name}" for name in todo.runs]
    lines += [f"missing  measured  {name}" for name in todo.measurements]
    for name in wanted:
        total = len(registry.measurements(name, scale))
        existing = total - len(registry.missing(name, scale, out))
        state = "to draw" if name in todo.pictures else "drawn  "
        lines.append(
            f"{state}  {name:18} {len(trainings(name, scale)):4} trainings, "
            f"{existing:4} of {total:4} measurements exist"
        )
    lines.append(
        f"{len(todo.runs)} trainings, {len(todo.measurements)} measurements and "
        f"{len(todo.pictures)} pictures to make"
    )
    return "\n".join(lines)
