"""Tables of test accuracy: runs that share what they need, trained once, two at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.errors import ConfigError
from sparsediag.core.workers import num_cores
from training.config import Run
from training.dependencies import with_prerequisites
from training.loop import Diverged
from training.progress import fit_all
from training.setup import Disconnected

OUT = Path("out/bench")
RESNET: dict[str, Any] = {
    "data": "digits",
    "model": {"name": "resnet18", "width": 8},
    "optim": {"epochs": 30},
}


def train(runs: Sequence[Run], device: torch.device) -> dict[str, BaseException]:
    """Train what is missing; the errors by the run's id."""
    return fit_all(runs, out=OUT, device=str(device), jobs=num_cores())


def accuracy(run: Run) -> float:
    """Test accuracy at the best validation epoch, in percent."""
    history = Checkpoint.load(OUT / "runs" / run.id / "best.pt").history
    return 100 * float(next(row["test_accuracy"] for row in history if row.get("best")))


def shown(runs: Sequence[Run], errors: dict[str, BaseException]) -> str:
    """Mean over seeds and half the width of its 95 % interval (Student), or what went wrong."""
    wrong = [
        errors[stage.id] for run in runs for stage in with_prerequisites(run) if stage.id in errors
    ]
    if wrong:
        said = {Disconnected: "collapsed", Diverged: "diverged", ConfigError: "starts dead"}
        return next((word for kind, word in said.items() if isinstance(wrong[0], kind)), "failed")
    found = np.array([accuracy(run) for run in runs])
    half = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found))
    return f"{found.mean():.1f} ± {half:.1f}"
