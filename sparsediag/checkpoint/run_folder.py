"""The folder of a run: its checkpoints in order, and the epochs that each was trained for."""

from __future__ import annotations

import re
from pathlib import Path

from sparsediag.checkpoint.checkpoint import Checkpoint


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run in order of their steps, one for each step.

    Files that record no step, as others' do not, are in order of the numbers in their names.

    Raises:
        ValueError: If there is none, or their order cannot be told.
    """
    files = [*sorted(folder.glob("epoch-*.pt")), *folder.glob("best.pt"), *folder.glob("last.pt")]
    if not files:
        raise ValueError(f"{folder} holds no checkpoint; give the folder that a training wrote")
    if len(files) == 1:
        return files
    steps: dict[int, Path] = {}
    untold: dict[int, Path] = {}
    for file in files:
        kept = Checkpoint.load(file)
        if kept.step or kept.run:
            steps.setdefault(kept.step, file)
            continue
        number = _number(file)
        if number is None or number in untold:
            raise ValueError(
                f"{file} records no step, and its name has no number of its own; "
                "name it epoch-N.pt or move it away"
            )
        untold[number] = file
    if steps and any(untold):
        raise ValueError(f"{untold[max(untold)]} records no step and others do; move either away")
    steps = untold | steps
    return [steps[step] for step in sorted(steps)]


def epochs(file: Path, kept: Checkpoint) -> int:
    """Epochs trained: those that a checkpoint records, or the number in the name of its file."""
    return len(kept.history) or _number(file) or 0


def _number(file: Path) -> int | None:
    found = re.match(r"epoch-(\d+)", file.name)
    return int(found[1]) if found else None
