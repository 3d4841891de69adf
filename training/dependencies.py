"""The runs that a run depends on, and their checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sparsediag.checkpoint.checkpoint import Checkpoint
from training.config import Run
from training.prerequisite import Prerequisite


def with_prerequisites(run: Run) -> list[Run]:
    """Return the runs that a run needs, in the order of training, and the run itself."""
    runs = [needed for earlier in run.before() for needed in with_prerequisites(earlier)]
    return list(dict.fromkeys([*runs, run]))


def load_trained(run: Run, needed: Iterable[Prerequisite], out: Path) -> list[Checkpoint]:
    """Load the last checkpoints of finished runs that a run needs."""
    ids = [run.prerequisite(one).id for one in needed]
    return [Checkpoint.load(out / "runs" / name / "last.pt") for name in ids]


def load_rewind_origin(run: Run, out: Path) -> Checkpoint:
    """Load the checkpoint whose weights a rewound run starts from."""
    origin, file = run.rewound()
    return Checkpoint.load(out / "runs" / origin.id / file)
