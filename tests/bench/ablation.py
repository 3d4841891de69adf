"""The ablation part of the benchmarks: what each of ToST's tweaks does to sparse nets on digits."""

from __future__ import annotations

from typing import Any

import torch

from sparsediag.models import SKIPS
from tests.bench.accuracy import RESNET, shown, train
from tests.bench.timing import Rows, table
from training.config import Run

DENSITIES = (0.1, 0.05, 0.02)
SEEDS = (0, 1, 2, 3, 4)
MASKS = ("random", "snip")
TWEAKS: dict[str, Any] = {
    "none": [],
    **{f"GSk, {kind}": {"ghost_skips": {"kind": kind}} for kind in SKIPS},
    **{
        f"GSk, {label}": {"ghost_skips": options}
        for label, options in {
            "linear": {"schedule": "linear"},
            "cosine": {"schedule": "cosine"},
            "abrupt": {"schedule": "step"},
            "late": {"until": 0.75},
            "for good": {"schedule": "none"},
        }.items()
    },
    "GSw": ["ghost_neurons"],
    "LRsI": ["rescale"],
    "LS": ["smoothing"],
    "tost": ["tost"],
}


def runs(mask: str, density: float, tweaks: str) -> list[Run]:
    """A training from each seed."""
    table = {"mask": {"method": mask, "density": density}, "tweaks": TWEAKS[tweaks]}
    return [Run.of(RESNET | table | {"seed": seed}) for seed in SEEDS]


def section(device: torch.device) -> list[str]:
    cells = [(m, d) for m in MASKS for d in DENSITIES]
    wanted = [run for cell in cells for tweaks in TWEAKS for run in runs(*cell, tweaks)]
    errors = train(wanted, device)
    rows: Rows = [
        (tweaks, *(shown(runs(*cell, tweaks), errors) for cell in cells)) for tweaks in TWEAKS
    ]
    heads = ("tweaks", *(f"{mask}, {1 - density:.0%}" for mask, density in cells))
    return [
        "Test accuracy of a ResNet-18 of width 8 on digits in percent, 30 epochs, by mask and",
        f"sparsity: the mean of {len(SEEDS)} seeds and its 95 % interval (Student's t); diverged",
        "if the loss of a run stopped being a number. GSk is `average` with a cubic gate that is",
        "shut at the first drop, but for what the row says.",
        "",
        *table(heads, rows),
    ]
