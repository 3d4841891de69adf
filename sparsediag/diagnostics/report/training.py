"""Report section on the recorded training: loss, accuracy and learning rate by epoch."""

from __future__ import annotations

import numpy as np

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.diagnostics.report import charts
from sparsediag.diagnostics.report.charts import Curve, LineStyles, describe_values
from sparsediag.diagnostics.report.measure import Measured
from sparsediag.diagnostics.report.parts import Section, figure, grid, legend, missing, text

RATES = {
    "Loss": ("val_loss", "train_loss", ".3g"),
    "Accuracy": ("val_accuracy", "train_accuracy", ".1%"),
    "Learning rate": ("lr", "", ".2g"),
}
LOSS_TWEAKS = ("smoothing", "distillation")


def training(measured: Measured, line_styles: LineStyles) -> Section:
    """Return the section on loss, accuracy and learning rate by epoch."""
    trainings = {
        name: net.checkpoint for name, net in measured.nets.items() if net.checkpoint.history
    }
    pictures = []
    for title, (first, second, form) in RATES.items():
        solid = {name: curve for name, c in trainings.items() if (curve := _recorded(c, first))}
        dashed = {name: curve for name, c in trainings.items() if (curve := _recorded(c, second))}
        solid, dashed = (solid, dashed) if solid else (dashed, {})
        if not solid:
            continue
        rings = {
            name: float(row["epoch"]) for name in solid if (row := checkpoint_row(trainings[name]))
        }
        chart = charts.lines(
            solid,
            dashed,
            xlabel="epoch",
            ylabel=title.lower(),
            line_styles=line_styles,
            log=title != "Accuracy",
            rings=rings,
            size=charts.THIRD,
        )
        pictures.append(figure(title, chart, alt=describe_values(solid, form)))
    if not trainings:
        return Section("training", "Training", text("The checkpoints hold no training history."))
    without = {
        n: "its checkpoint holds no training history" for n in measured.nets if n not in trainings
    }
    caption = "Solid: validation images. Dashed: training images. Ring: the checkpoint."
    smoothed = [name for name, c in trainings.items() if _has_other_objective(c)]
    if smoothed:
        caption += f" The training loss of {', '.join(smoothed)} includes its tweaks."
    body = (
        [text(caption), legend(trainings, line_styles), grid(*pictures, columns=3)]
        if pictures
        else []
    )
    return Section("training", "Training", "".join([*body, missing(without)]))


def _has_other_objective(checkpoint: Checkpoint) -> bool:
    """Return whether `train_loss` is no cross-entropy: in files older than the `objective`."""
    tweaks = checkpoint.run.get("tweaks", {})
    return "objective" not in checkpoint.history[0] and not tweaks.keys().isdisjoint(LOSS_TWEAKS)


def _recorded(checkpoint: Checkpoint, what: str) -> Curve | None:
    """Return epochs and values of a recorded quantity, or None."""
    rows = [(i, row[what]) for i, row in enumerate(checkpoint.history) if row.get(what) is not None]
    if not rows:
        return None
    return np.array([i + 1 for i, _ in rows]), np.array([v for _, v in rows], float)


def checkpoint_row(checkpoint: Checkpoint) -> dict[str, float]:
    """Return the history's row of the checkpoint's weights (epochs from 1), or an empty dict."""
    epoch, history = checkpoint.epoch, checkpoint.history
    known = checkpoint.steps and 0 < epoch <= len(history)
    return history[epoch - 1] | {"epoch": epoch} if known else {}
