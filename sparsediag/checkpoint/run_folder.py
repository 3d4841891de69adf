"""The folder of a run: its summary, its checkpoints in order, and the epochs of each."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.checkpoint.labels import FIRST, describe_run, run_label
from sparsediag.checkpoint.watch_file import advise_watch


def summarise(folder: Path) -> dict[str, Any]:
    """Return what a training is and its outcome, as plain types: the content of `summary.json`.

    It is read from `run.toml` and `history.jsonl`, so that folders of older versions have one too.

    Returns:
        label, id, model, data, mask, density, tweaks, seed, lr and epochs of the training;
        `finished`; `epochs_trained`; and of the best epoch by validation accuracy, None before the
        end: best_epoch (from 1), val_accuracy, test_accuracy, test_loss and sparsity (share of
        zeros among the prunable weights). `last_test_accuracy` is that of the last epoch, and
        `run` has all keys of the run file.

    Raises:
        OSError: If the folder is not one of a training that has begun.
    """
    run = tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))
    file = folder / "history.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    history: list[dict[str, Any]] = [json.loads(line) for line in lines]
    best = next((i for i, row in enumerate(history) if row.get("best")), None)
    row = {} if best is None else history[best]
    facts = describe_run(run)
    measured = ("val_accuracy", "test_accuracy", "test_loss", "sparsity")
    return {
        "label": run_label(run),
        "id": folder.resolve().name,
        **{part: facts.get(part) for part in FIRST},
        "lr": facts.get("optim.lr"),
        "epochs": facts.get("optim.epochs"),
        "finished": best is not None,
        "epochs_trained": len(history),
        "best_epoch": None if best is None else best + 1,
        **{key: row.get(key) for key in measured},
        "last_test_accuracy": history[-1].get("test_accuracy") if history else None,
        "run": run,
    }


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run in order of their steps, one for each step.

    Files that record no step, such as those of other tools, are ordered by the numbers in their
    names.

    Raises:
        ValueError: If there is no checkpoint, or the order is unknown.
    """
    files = [*sorted(folder.glob("epoch-*.pt")), *folder.glob("best.pt"), *folder.glob("last.pt")]
    if not files:
        example = next((f", such as {f.parent}" for f in sorted(folder.glob("**/best.pt"))), "")
        raise ValueError(
            f"{folder} holds no checkpoint; give the folder that a training wrote{example}"
            f"{advise_watch(folder / 'watch.jsonl')}"
        )
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
    """Return the epochs that the weights were trained for, or the number in the file's name."""
    return checkpoint.epoch or _number(file) or 0


def _number(file: Path) -> int | None:
    match = re.match(r"epoch-(\d+)", file.name)
    return int(match[1]) if match else None
