"""Layers: what each of them keeps, lets through and passes back, from the input to the output."""

from __future__ import annotations

from functools import partial

import numpy as np

from sparsediag.core import html
from sparsediag.diagnostics.activations import Activations
from sparsediag.diagnostics.census import Census
from sparsediag.diagnostics.gradflow import Gradflow
from sparsediag.diagnostics.report import charts, classes
from sparsediag.diagnostics.report.charts import Looks, told
from sparsediag.diagnostics.report.measure import Measured
from sparsediag.diagnostics.report.parts import Section, figure, grid, key, missing, numbers, text
from sparsediag.diagnostics.signal import Signal

Lines = dict[str, tuple[list[str], np.ndarray]]


def masks(found: Measured, looks: Looks) -> Section:
    """Live weights, what lies on a path, and what is dead."""
    alive, used, filters, channels = ({} for _ in range(4))
    for name, one in found.of(Census).items():
        alive[name] = one.weights, 100 * one.alive[0] / one.sizes
        used[name] = one.weights, 100 * one.used[0] / one.sizes
        filters[name], channels[name] = (
            (one.weights, one.filters[0]),
            (one.weights, one.channels[0]),
        )
    body = [key(alive, looks)]
    if alive:
        rows = [row for one in found.of(Census).values() for row in one.table()]
        rows = found.masks.table() if found.masks else rows
        over = partial(charts.over_depth, part="weight", looks=looks)
        kept = over(alive, used, up="live weights (%)", log=True)
        paths = "In percent. Dashed: those on a path from the input to the output."
        drawn = [figure("Live weights", kept, alt=told(alive, ".2f"), note=paths)]
        if any(one.filters.any() or one.channels.any() for one in found.of(Census).values()):
            dead = over(filters, channels, up="dead units")
            units = "Filters without a live weight. Dashed: channels without one."
            drawn.append(figure("Dead units", dead, alt=told(filters, "d"), note=units))
        body += [
            html.table(rows, caption="In all"),
            grid(*drawn),
            numbers({n: one.layers() for n, one in found.of(Census).items()}, "Every layer"),
        ]
    return Section("masks", "Sparsity and dead units", "".join([*body, _failed(found, "census")]))


def activity(found: Measured, looks: Looks) -> Section:
    """Return how much of the signal is zero, and which channels never wake."""
    kept = found.of(Activations)
    body = [key(kept, looks)]
    if kept:
        one = next(iter(kept.values()))
        shares = {
            "Exactly 0": {n: (a.names, 100 * a.zeros) for n, a in kept.items()},
            f"At most {one.threshold:g}": {n: (a.names, 100 * a.small) for n, a in kept.items()},
            "Dead channels": {n: (a.names, 100 * a.dead) for n, a in kept.items()},
        }
        dead = np.concatenate([a.dead for a in kept.values()])
        if not (dead > 0).any():
            del shares["Dead channels"]
        if (dead == 0).all():
            body.append(text("Every channel of every block wakes for some sample."))
        body.append(grid(*(_shares(title, values, looks) for title, values in shares.items())))
        body.append(classes.asleep(kept))
        body.append(numbers({name: a.table() for name, a in kept.items()}))
        body.append(classes.extremes(kept))
    return Section("activations", "Activations", "".join([*body, _failed(found, "activations")]))


def _shares(title: str, values: Lines, looks: Looks) -> str:
    most = max(1.0, *(float(np.nan_to_num(share).max()) for _, share in values.values()))
    limits = (-0.03 * most, 1.05 * most)
    drawn = charts.over_depth(values, part="block", up="share (%)", looks=looks, limits=limits)
    note = "In percent of a block's " + ("channels." if title == "Dead channels" else "outputs.")
    return figure(title, drawn, alt=told(values, ".1f"), note=note)


def gradients(found: Measured, looks: Looks) -> Section:
    """Return how much gradient reaches the live weights, and how much the dead ones would get."""
    kept = found.of(Gradflow)
    dead = {name: flow for name, flow in kept.items() if flow.dead_counts.any()}
    body = []
    if kept:
        norm = _both(
            "Norm",
            {name: (flow.names, flow.flow) for name, flow in kept.items()},
            {name: (flow.names, flow.dead_flow) for name, flow in dead.items()},
            looks,
            note="Of the gradient of a layer.",
        )
        each = _both(
            "Per weight",
            {name: (flow.names, flow.per_weight) for name, flow in kept.items()},
            {name: (flow.names, flow.dead_per_weight) for name, flow in dead.items()},
            looks,
            note="The norm over the root of the number of weights.",
        )
        body = [
            text(
                "The gradient on the live weights, layer by layer."
                + " Dashed: what the dead ones would get." * bool(dead)
            ),
            key(kept, looks),
            grid(norm, each),
            numbers({name: flow.table() for name, flow in kept.items()}),
        ]
    return Section("gradients", "Gradient flow", "".join([*body, _failed(found, "gradflow")]))


def _both(title: str, live: Lines, dead: Lines, looks: Looks, *, note: str) -> str:
    drawn = charts.over_depth(live, dead, part="layer", up="gradient", looks=looks, log=True)
    alt = told(live | {f"{name}, dead": line for name, line in dead.items()}, ".2g")
    return figure(title, drawn, alt=alt, note=note)


def signals(found: Measured, looks: Looks) -> Section:
    """Return how far outputs, the angle between samples and the gradient carry."""
    kept = found.of(Signal)
    body = []
    if kept:
        over = partial(charts.over_depth, part="block", looks=looks, size=charts.THIRD)
        sizes: Lines = {name: (one.names, one.rms) for name, one in kept.items()}
        angles: Lines = {name: (one.names, one.cosine) for name, one in kept.items()}
        slopes: Lines = {name: (one.names, one.gradient) for name, one in kept.items()}
        low = min(0.0, *(float(np.nan_to_num(one.cosine).min()) for one in kept.values()))
        drawn = [
            figure(
                "Outputs",
                over(sizes, up="root mean square", log=True),
                alt=told(sizes, ".3g"),
                note="Their size.",
            ),
            figure(
                "Between samples",
                over(angles, up="mean cosine", limits=(low - 0.03, 1.03)),
                alt=told(angles, ".2f"),
                note="At 1 all are alike.",
            ),
            figure(
                "Gradient",
                over(slopes, up="root mean square", log=True),
                alt=told(slopes, ".2g"),
                note="Its size, as it comes back.",
            ),
        ]
        body = [
            text("What comes out of each block, and the gradient of the loss there."),
            key(kept, looks),
            grid(*drawn, columns=3),
            numbers({name: one.table() for name, one in kept.items()}),
        ]
    return Section("signal", "Signal through depth", "".join([*body, _failed(found, "signal")]))


def _failed(found: Measured, what: str) -> str:
    return missing(found.failed.get(what, {}))
