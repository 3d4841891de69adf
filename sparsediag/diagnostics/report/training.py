"""Training: what was recorded epoch by epoch."""

from __future__ import annotations

import numpy as np

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.diagnostics.report import charts
from sparsediag.diagnostics.report.charts import Curve, Looks, told
from sparsediag.diagnostics.report.measure import Measured
from sparsediag.diagnostics.report.parts import Section, figure, grid, key, missing, text

RATES = {
    "Loss": ("val_loss", "train_loss", ".3g"),
    "Accuracy": ("val_accuracy", "train_accuracy", ".1%"),
    "Learning rate": ("lr", "", ".2g"),
}


def training(found: Measured, looks: Looks) -> Section:
    """Return what each training recorded, epoch by epoch."""
    kept = {name: net.checkpoint for name, net in found.nets.items() if net.checkpoint.history}
    pictures = []
    for title, (first, second, form) in RATES.items():
        solid = {name: curve for name, c in kept.items() if (curve := _recorded(c, first))}
        dashed = {name: curve for name, c in kept.items() if (curve := _recorded(c, second))}
        solid, dashed = (solid, dashed) if solid else (dashed, {})
        if not solid:
            continue
        rings = {name: float(row["epoch"]) for name in solid if (row := own(kept[name]))}
        drawn = charts.lines(
            solid,
            dashed,
            across="epoch",
            up=title.lower(),
            looks=looks,
            log=title == "Loss",
            rings=rings,
            size=charts.THIRD,
        )
        pictures.append(figure(title, drawn, alt=told(solid, form)))
    if not kept:
        return Section("training", "Training", text("No history of a training came with the nets."))
    without = {n: "it holds no history of a training" for n in found.nets if n not in kept}
    how = "Solid: validation images. Dashed: training images. Ringed: the epoch of the checkpoint."
    body = [text(how), key(kept, looks), grid(*pictures, columns=3)] if pictures else []
    return Section("training", "Training", "".join([*body, missing(without)]))


def _recorded(checkpoint: Checkpoint, what: str) -> Curve | None:
    """Epochs and values of what a training recorded."""
    rows = [(i, row[what]) for i, row in enumerate(checkpoint.history) if row.get(what) is not None]
    if not rows:
        return None
    return np.array([i + 1 for i, _ in rows]), np.array([v for _, v in rows], float)


def own(checkpoint: Checkpoint) -> dict[str, float]:
    """The row of the history that the weights belong to, with epochs counted from 1; or nothing."""
    history = checkpoint.history
    epochs = checkpoint.run.get("optim", {}).get("epochs", len(history))
    if not history or not checkpoint.steps:
        return {}
    row = round(checkpoint.step * epochs / checkpoint.steps) - 1
    return history[row] | {"epoch": row + 1} if 0 <= row < len(history) else {}
