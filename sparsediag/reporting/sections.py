"""Sections: training, masks, activations and gradients, curvature: pictures, then numbers."""

from __future__ import annotations

from functools import partial

import numpy as np

from sparsediag import display
from sparsediag.checkpoint import Checkpoint
from sparsediag.reporting import charts
from sparsediag.reporting.charts import Curve, Looks, told
from sparsediag.reporting.measure import Measured
from sparsediag.reporting.parts import Section, figure, grid, key, missing, numbers, text

RATES = {
    "Loss": ("val_loss", "train_loss", ".3g"),
    "Accuracy": ("val_accuracy", "train_accuracy", ".1%"),
    "Learning rate": ("lr", "", ".2g"),
}


def training(found: Measured, looks: Looks) -> Section:
    """What each training recorded, epoch by epoch."""
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
    return (np.array([i for i, _ in rows]), np.array([v for _, v in rows], float)) if rows else None


def own(checkpoint: Checkpoint) -> dict[str, float]:
    """The row of the history that the checkpoint's weights belong to; empty where it is unknown."""
    history = checkpoint.history
    epochs = checkpoint.run.get("optim", {}).get("epochs", len(history))
    if not history or not checkpoint.steps:
        return {}
    row = round(checkpoint.step * epochs / checkpoint.steps) - 1
    return {"epoch": row} | history[row] if 0 <= row < len(history) else {}


def masks(found: Measured, looks: Looks) -> Section:
    """Live weights, what lies on a path, and what is dead."""
    alive, used, filters, channels = ({} for _ in range(4))
    for name, one in found.census.items():
        alive[name] = one.weights, 100 * one.alive[0] / one.sizes
        used[name] = one.weights, 100 * one.used[0] / one.sizes
        filters[name], channels[name] = (
            (one.weights, one.filters[0]),
            (one.weights, one.channels[0]),
        )
    body = [key(alive, looks)]
    if alive:
        rows = [row for one in found.census.values() for row in one.table()]
        rows = found.together.table() if found.together else rows
        over = partial(charts.over_depth, part="weight", looks=looks)
        kept = over(alive, used, up="live weights (%)", log=True)
        paths = "In percent. Dashed: those on a path from the input to the output."
        drawn = [figure("Live weights", kept, alt=told(alive, ".2f"), note=paths)]
        if any(one.filters.any() or one.channels.any() for one in found.census.values()):
            dead = over(filters, channels, up="dead units")
            units = "Filters without a live weight. Dashed: channels without one."
            drawn.append(figure("Dead units", dead, alt=told(filters, "d"), note=units))
        body += [
            display.table(rows, caption="In all"),
            grid(*drawn),
            numbers({n: one.layers() for n, one in found.census.items()}, "Every layer"),
        ]
    return Section("masks", "Sparsity and dead units", "".join([*body, _failed(found, "census")]))


def activity(found: Measured, looks: Looks) -> Section:
    """How much of the signal is zero, and which channels never wake."""
    kept = found.activations
    body = [key(kept, looks)]
    if kept:
        one = next(iter(kept.values()))
        shares = {
            "Exactly 0": {n: (a.names, 100 * a.zeros) for n, a in kept.items()},
            f"At most {one.threshold:g}": {n: (a.names, 100 * a.small) for n, a in kept.items()},
            "Dead channels": {n: (a.names, 100 * a.dead) for n, a in kept.items()},
        }
        if not any(a.dead.any() for a in kept.values()):
            del shares["Dead channels"]
            body.append(text("Every channel of every block wakes for some sample."))
        body.append(grid(*(_shares(title, values, looks) for title, values in shares.items())))
        body.append(numbers({name: a.table() for name, a in kept.items()}))
    return Section("activations", "Activations", "".join([*body, _failed(found, "activations")]))


def _shares(title: str, values: dict[str, tuple[list[str], np.ndarray]], looks: Looks) -> str:
    most = max(1.0, *(float(share.max()) for _, share in values.values()))
    limits = (-0.03 * most, 1.05 * most)
    drawn = charts.over_depth(values, part="block", up="share (%)", looks=looks, limits=limits)
    note = "In percent of a block's " + ("channels." if title == "Dead channels" else "outputs.")
    return figure(title, drawn, alt=told(values, ".1f"), note=note)


def gradients(found: Measured, looks: Looks) -> Section:
    """How much gradient reaches the live weights."""
    kept = found.gradflow
    body = []
    if kept:
        flows = {
            "Norm": {name: (flow.names, flow.flow) for name, flow in kept.items()},
            "Per weight": {name: (flow.names, flow.per_weight) for name, flow in kept.items()},
        }
        notes = ("Of the gradient of a layer.", "The norm over the root of the live weights.")
        drawn = [
            figure(
                title,
                charts.over_depth(values, part="layer", up="gradient", looks=looks, log=True),
                alt=told(values, ".2g"),
                note=note,
            )
            for (title, values), note in zip(flows.items(), notes, strict=True)
        ]
        body += [text("The gradient of the loss on the live weights, layer by layer.")]
        body += [
            key(kept, looks),
            grid(*drawn),
            numbers({name: flow.table() for name, flow in kept.items()}),
        ]
    return Section("gradients", "Gradient flow", "".join([*body, _failed(found, "gradflow")]))


def curvature(found: Measured, looks: Looks) -> Section:
    """The top eigenvalues with their certificate, and the density."""
    kept = found.spectrum
    body = []
    if kept:
        values = {
            n: (list(range(1, len(s.eigenvalues) + 1)), s.eigenvalues) for n, s in kept.items()
        }
        top = figure(
            "Largest eigenvalues",
            charts.eigenvalues(kept, looks),
            alt=told(values, ".3g"),
            note="Bars: where they certainly lie. Hollow: something speaks against them.",
        )
        whole = figure(
            "Density",
            charts.densities(kept, looks),
            alt="; ".join(
                f"{n}: from {s.lowest:.3g} to {s.eigenvalues[0]:.3g}" for n, s in kept.items()
            ),
            note="Of the whole spectrum, from random starts.",
        )
        body += [
            text("The Hessian of the loss with respect to the live weights."),
            key(kept, looks),
            grid(top, whole),
        ]
        for name, one in kept.items():
            verdict = "converged" if one.converged else "NOT converged"
            body.append(display.table(one.table(), caption=f"{name}: {verdict}"))
    return Section("curvature", "Curvature", "".join([*body, _failed(found, "spectrum")]))


def _failed(found: Measured, what: str) -> str:
    return missing(found.failed.get(what, {}))
