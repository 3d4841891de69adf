"""The methods part of the benchmarks: test accuracy of every mask on digits, with its interval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from figures import store
from figures.work import Work, cores
from sparsediag import terminal
from sparsediag.checkpoint import Checkpoint
from tests.bench.timing import Rows, table
from training.config import Run
from training.progress import stages
from training.start import Collapsed

OUT = Path("out/bench")
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
    "SynFlow, 1 step": {"mask": {"method": "synflow", "steps": 1}, "collapse": "train"},
    "RigL": {"mask": {"method": "rigl", "every": 25}},
    "SET": {"mask": {"method": "set", "every": 25}},
    "learned": {"mask": {"method": "learned"}, "rewind": 1.0},
    "ZerO, magnitude, no reset": {"mask": {"method": "magnitude"}, "rewind": 1.0, "init": "zero"},
}
NETS: dict[str, dict[str, Any]] = {
    "resnet18, width 8": {
        "model": {"name": "resnet18", "width": 8},
        "optim": {"epochs": 30},
    },
    "mlp": {
        "model": {"name": "mlp"},
        "optim": {
            "name": "adam",
            "lr": 1e-3,
            "weight_decay": 0.0,
            "epochs": 30,
            "batch": 64,
            "drops": [],
        },
    },
}


@dataclass(frozen=True)
class Cell:
    """A net, a method and a density, trained from several seeds."""

    net: str
    method: str
    density: float

    def run(self, seed: int) -> Run:
        """One of its trainings."""
        table = {"data": "digits", "seed": seed, **NETS[self.net], **METHODS[self.method]}
        return Run.of(table | {"mask": table["mask"] | {"density": self.density}})


def cells() -> Iterator[Cell]:
    for net in NETS:
        for method in METHODS:
            for density in DENSITIES:
                yield Cell(net, method, density)


def train() -> dict[str, BaseException]:
    """Train what is missing, two at a time, runs that share rounds once."""
    plan = Work({}, {})

    def add(run: Run) -> str:
        if run.id not in plan.tasks and not store.trained(run, OUT):
            plan.after[run.id] = {add(before) for before in run.before()} - {""}
            plan.tasks[run.id] = (store.train, (run, OUT))
        return run.id if run.id in plan.tasks else ""

    for cell in cells():
        for seed in SEEDS:
            add(cell.run(seed))
    with terminal.bars() as bars:
        task = bars.add_task("trainings", total=len(plan.tasks))
        return plan.do(jobs=cores(), done=lambda _: bars.advance(task))


def accuracy(run: Run) -> float:
    """Test accuracy at the best validation epoch, in percent."""
    history = Checkpoint.load(OUT / "runs" / run.id / "best.pt").history
    return 100 * float(next(row["test_accuracy"] for row in history if row.get("best")))


def shown(cell: Cell, errors: dict[str, BaseException]) -> str:
    """Mean and half the width of its 95 % interval (Student), or what went wrong."""
    runs = [cell.run(seed) for seed in SEEDS]
    wrong = [errors[stage.id] for run in runs for stage in stages(run) if stage.id in errors]
    if wrong:
        return "collapsed" if isinstance(wrong[0], Collapsed) else "starts dead"
    found = np.array([accuracy(run) for run in runs])
    half = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found))
    return f"{found.mean():.1f} ± {half:.1f}"


def section() -> list[str]:
    errors = train()
    lines = [
        f"Test accuracy on digits in percent: the mean of {len(SEEDS)} seeds and its 95 %",
        "interval (Student's t). RigL and SET move every 25 steps. 'starts dead': ZerO leaves too",
        "many units without a gradient, and the run is refused.",
    ]
    for net in NETS:
        rows: Rows = [
            (method, *(shown(Cell(net, method, density), errors) for density in DENSITIES))
            for method in METHODS
        ]
        heads = (net, *(f"{1 - density:.0%} sparse" for density in DENSITIES))
        lines += ["", *table(heads, rows)]
    return lines
