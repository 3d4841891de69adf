"""Outcome of finished trainings: the test accuracy, and over seeds its mean and deviation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sparsediag.checkpoint.labels import run_labels
from sparsediag.checkpoint.run_folder import summarise
from sparsediag.plotting import terminal


def outcome_line(summary: dict[str, Any]) -> str:
    """Return the line with the test accuracy of a finished training.

    >>> outcome_line({"test_accuracy": 0.463, "val_accuracy": 0.515, "best_epoch": 2, "epochs": 3})
    'test accuracy 46.3% (epoch 2 of 3, the best on validation images: 51.5%)'
    """
    epoch = f"{summary['best_epoch']} of {summary['epochs']}"
    test, validation = (f"{summary[key]:.1%}" for key in ("test_accuracy", "val_accuracy"))
    return f"test accuracy {test} (epoch {epoch}, the best on validation images: {validation})"


def summarise_all(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the summaries of finished trainings, and the test accuracy of each group of seeds.

    Returns:
        `runs`, the summaries with the path of each `checkpoint`; and `groups` of runs that differ
        in their seed only: label, seeds, mean of the test accuracy, and its standard deviation
        (of a sample, n - 1; None for one seed).
    """
    runs = [summarise(folder) | {"checkpoint": str(folder / "best.pt")} for folder in folders]
    seedless = [run["run"] | {"seed": 0} for run in runs]
    distinct = [table for i, table in enumerate(seedless) if table not in seedless[:i]]
    groups: list[dict[str, Any]] = []
    for table, label in zip(distinct, run_labels(distinct), strict=True):
        members = [run for run, own in zip(runs, seedless, strict=True) if own == table]
        accuracies = [run["test_accuracy"] for run in members]
        groups.append(
            {
                "label": label,
                "seeds": [run["seed"] for run in members],
                "test_accuracy": mean(accuracies),
                "deviation": stdev(accuracies) if len(accuracies) > 1 else None,
            }
        )
    return {"runs": runs, "groups": groups}


def describe_outcome(folders: Sequence[Path]) -> str:
    """Return what the user reads at the end: a line, or a table with a row for each group."""
    outcome = summarise_all(folders)
    if len(folders) == 1:
        return outcome_line(outcome["runs"][0])
    rows = [
        {"training": group["label"], "test": _with_deviation(group), "seeds": len(group["seeds"])}
        for group in outcome["groups"]
    ]
    if len(rows) == 1:
        rows = [
            {"seed": run["seed"], "test": f"{run['test_accuracy']:.1%}"}
            | {"validation": f"{run['val_accuracy']:.1%}", "best epoch": run["best_epoch"]}
            for run in outcome["runs"]
        ]
    table = terminal.format_table("accuracy", rows)
    explanation = "mean ± standard deviation of the seeds"
    if len(outcome["groups"]) == 1:
        return f"{table}\ntest accuracy {_with_deviation(outcome['groups'][0])} ({explanation})"
    hint = f"intervals and a picture: sparsediag runs {folders[0].parent.parent}"
    return "\n".join([table, *([explanation] if len(rows) < len(folders) else []), hint])


def _with_deviation(group: dict[str, Any]) -> str:
    spread = "" if group["deviation"] is None else f" ± {group['deviation']:.1%}"
    return f"{group['test_accuracy']:.1%}{spread}"
