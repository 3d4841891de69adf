"""The methods part of the benchmarks: test accuracy of every mask on digits, with its interval."""

from __future__ import annotations

from typing import Any

import torch

from tests.bench.accuracy import RESNET, shown, train
from tests.bench.timing import Rows, table
from training.config import Run

DENSITIES = (0.1, 0.05, 0.02)
SEEDS = (0, 1, 2)
METHODS: dict[str, dict[str, Any]] = {
    "random": {"mask": {"method": "random"}},
    "random, ERK": {"mask": {"method": "random", "scope": "erk"}},
    "magnitude": {"mask": {"method": "magnitude"}},
    "magnitude, no reset": {"mask": {"method": "magnitude"}, "rewind": 1.0},
    "lottery": {"mask": {"method": "lottery"}},
    "lottery, rewound to 18 %": {"mask": {"method": "lottery"}, "rewind": 0.18},
    "SNIP": {"mask": {"method": "snip"}},
    "GraSP": {"mask": {"method": "grasp"}},
    "SynFlow, 100 steps": {"mask": {"method": "synflow"}},
    "SynFlow, 1 step": {"mask": {"method": "synflow", "steps": 1}, "on_disconnected": "warn"},
    "RigL": {"mask": {"method": "rigl", "update_interval": 25}},
    "SET": {"mask": {"method": "set", "update_interval": 25}},
    "learned": {"mask": {"method": "learned"}, "rewind": 1.0},
    "ZerO, magnitude, no reset": {
        "mask": {"method": "magnitude"},
        "rewind": 1.0,
        "init": "zero_hadamard",
    },
}
MLP: dict[str, Any] = {
    "data": "digits",
    "model": {"name": "mlp"},
    "optim": {
        "name": "adam",
        "lr": 1e-3,
        "weight_decay": 0.0,
        "epochs": 30,
        "batch_size": 64,
        "lr_milestones": [],
    },
}
NETS = {"resnet18, width 8": RESNET, "mlp": MLP}


def runs(net: str, method: str, density: float) -> list[Run]:
    """A training from each seed."""
    table = NETS[net] | METHODS[method]
    table["mask"] = table["mask"] | {"density": density}
    return [Run.of(table | {"seed": seed}) for seed in SEEDS]


def section(device: torch.device) -> list[str]:
    wanted = [
        run
        for net in NETS
        for m in METHODS
        for density in DENSITIES
        for run in runs(net, m, density)
    ]
    errors = train(wanted, device)
    lines = [
        f"Test accuracy on digits in percent: the mean of {len(SEEDS)} seeds and its 95 %",
        "interval (Student's t). RigL and SET move every 25 steps. 'starts dead': ZerO leaves too",
        "many units without a gradient, and the run is refused.",
    ]
    for net in NETS:
        rows: Rows = [
            (method, *(shown(runs(net, method, density), errors) for density in DENSITIES))
            for method in METHODS
        ]
        heads = (net, *(f"{1 - density:.0%} sparse" for density in DENSITIES))
        lines += ["", *table(heads, rows)]
    return lines
