"""Bill: what the items cost at a scale, before anything starts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import torch

from figures import items
from figures.plan import Plan
from figures.scales import Scale
from sparsediag import models
from sparsediag.data.datasets import DATASETS
from training.config import Run
from training.dependencies import stages
from training.model import Model

# What a GPU is taken to sustain in training, in operations a second: a ResNet-18 of 1.1 GFLOP an
# image at 10 s an epoch of CIFAR. A guess for planning; measure yours with one training.
SUSTAINED = 1.5e13
TRAIN_SHARE = 0.9  # the rest is for validation
# images to train on and pixels a side; class folders are taken to be like CIFAR-10
MNIST = (60_000, 28)
SIZES = {"digits": (1300, 8), "mnist": MNIST, "fashion_mnist": MNIST, "tinyimagenet": (100_000, 64)}
DIAGNOSTIC, DRAWING = 0.6, 0.3  # weights of a measurement and a picture beside a short training


def operations(run: Run) -> float:
    """Multiplications and additions of a training, forward and backward; dead weights count."""
    count, _ = SIZES.get(run.data, (50_000, 32))
    model = replace(run.model, activation="relu")
    return (
        3.0 * _forward(json.dumps(asdict(model)), run.data) * TRAIN_SHARE * count * run.optim.epochs
    )


@cache
def _forward(model: str, data: str) -> float:
    """Operations of a net, told as JSON, on one image."""
    from torch.utils.flop_counter import FlopCounterMode

    source = DATASETS.get(data) or DATASETS["cifar10"]
    channels, (_, size) = len(source.moments), SIZES.get(data, (50_000, 32))
    net_of = Model(**json.loads(model))
    options = {"classes": source.classes, "channels": channels, "size": size}
    with torch.device("meta"):
        net = models.build(net_of.name, **net_of.keywords(), **options)
        image = torch.empty(1, channels, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(image)
    return float(counter.get_total_flops())


def weight(task: str, todo: Plan) -> float:
    """Return how long a task takes beside others, roughly: for the time that is left."""
    if run := todo.runs.get(task):
        dear = 1 + len(run.tweaks) / 3 + 4 * bool(run.record.eigenvalue_every)
        return run.optim.epochs / 10 * dear
    return DIAGNOSTIC if task in todo.measurements else DRAWING


def trainings(name: str, scale: Scale) -> dict[str, Run]:
    """All trainings that an item stands on, by id."""
    return {
        stage.id: stage
        for need in items.needs(name, scale).values()
        for stage in stages(scale.run(need.run))
    }


def told(wanted: Sequence[str], scale: Scale) -> str:
    """A line an item: its trainings, those that no item before it has, and their GPU hours."""
    lines = [f"{'item':18} {'trainings':>9} {'new':>6} {'GPU hours':>10}"]
    seen: dict[str, Run] = {}
    for name in wanted:
        own = trainings(name, scale)
        new = {key: run for key, run in own.items() if key not in seen}
        seen |= new
        hours = sum(map(operations, new.values())) / SUSTAINED / 3600
        lines.append(f"{name:18} {len(own):9} {len(new):6} {hours:10.1f}")
    total = sum(map(operations, seen.values())) / SUSTAINED / 3600
    lines.append(f"{'together':18} {'':9} {len(seen):6} {total:10.1f}")
    nets = Counter(f"{run.model.name} on {run.data}" for run in seen.values())
    lines.append("; ".join(f"{count} {net}" for net, count in nets.most_common()))
    lines.append(
        f"GPU hours at {SUSTAINED / 1e12:.0f} TFLOP/s sustained, trainings only; a training of "
        "yours tells images/s"
    )
    return "\n".join(lines)


def listing(wanted: Sequence[str], todo: Plan, scale: Scale, out: Path) -> str:
    """Return what is there and what is missing, item by item, and every missing task."""
    lines = [f"missing  training  {name}" for name in todo.runs]
    lines += [f"missing  measured  {name}" for name in todo.measurements]
    for name in wanted:
        needs = items.needs(name, scale)
        lost = len(items.missing(name, scale, out))
        state = "to draw" if name in todo.pictures else "drawn  "
        lines.append(
            f"{state}  {name:18} {len(trainings(name, scale)):4} trainings, "
            f"{len(needs) - lost:4} of {len(needs):4} measurements there"
        )
    lines.append(
        f"{len(todo.runs)} trainings, {len(todo.measurements)} measurements and "
        f"{len(todo.pictures)} pictures to make"
    )
    return "\n".join(lines)
