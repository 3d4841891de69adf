"""The folder of a run: its checkpoints in order, and the epochs that each was trained for."""

from __future__ import annotations

import re
from pathlib import Path

from sparsediag.checkpoint.checkpoint import Checkpoint


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run in order of their steps, one for each step.

    Files that record no step, such as those of other tools, are ordered by the numbers in their
    names.

    Raises:
        ValueError: If there is no checkpoint, or the order is unknown.
    """
    files = [*sorted(folder.glob("epoch-*.pt")), *folder.glob("best.pt"), *folder.glob("last.pt")]
    if not files:
        raise ValueError(f"{folder} holds no checkpoint; give the folder that a training wrote")
    if len(files) == 1:
        return files
    by_step: dict[int, Path] = {}
    by_number: dict[int, Path] = {}
    for file in files:
        checkpoint = Checkpoint.load(file)
        if checkpoint.step or checkpoint.run:
            by_step.setdefault(checkpoint.step, file)
            continue
        number = _number(file)
        if number is None or number in by_number:
            raise ValueError(
                f"{file} records no step, and its name has no number of its own; "
                "name it epoch-N.pt or move it away"
            )
        by_number[number] = file
    if by_step and any(by_number):
        file = by_number[max(by_number)]
        raise ValueError(f"{file} records no step and others do; move either away")
    ordered = by_number | by_step
    return [ordered[step] for step in sorted(ordered)]


def epochs(file: Path, checkpoint: Checkpoint) -> int:
    """Return the epochs that a checkpoint records, or the number in the name of its file."""
    return len(checkpoint.history) or _number(file) or 0


def _number(file: Path) -> int | None:
    match = re.match(r"epoch-(\d+)", file.name)
    return int(match[1]) if match else None
