"""Report sections by layer: masks, activations, gradient flow and signal propagation."""

from __future__ import annotations

from functools import partial

import numpy as np

from sparsediag.core import html
from sparsediag.diagnostics.activations import Activations
from sparsediag.diagnostics.census import Census
from sparsediag.diagnostics.gradflow import Gradflow
from sparsediag.diagnostics.report import charts, classes
from sparsediag.diagnostics.report.charts import LineStyles, describe_values
from sparsediag.diagnostics.report.measure import Measured
from sparsediag.diagnostics.report.parts import (
    Section,
    figure,
    grid,
    legend,
    missing,
    number_tables,
    text,
)
from sparsediag.diagnostics.signal import Signal

Lines = dict[str, tuple[list[str], np.ndarray]]


def masks(measured: Measured, line_styles: LineStyles) -> Section:
    """Return the section on live weights, weights on a path through the network, and dead units."""
    alive, used, filters, channels = ({} for _ in range(4))
    for name, one in measured.of(Census).items():
        alive[name] = one.weights, 100 * one.alive[0] / one.sizes
        used[name] = one.weights, 100 * one.used[0] / one.sizes
        filters[name], channels[name] = (
            (one.weights, one.filters[0]),
            (one.weights, one.channels[0]),
        )
    body = [legend(alive, line_styles)]
    if alive:
        rows = [row for one in measured.of(Census).values() for row in one.table()]
        rows = measured.masks.table() if measured.masks else rows
        over = partial(charts.over_depth, part="weight", line_styles=line_styles)
        chart = over(alive, used, ylabel="live weights (%)", log=True)
        paths = "In percent. Dashed: weights on a path from the input to the output."
        pictures = [figure("Live weights", chart, alt=describe_values(alive, ".2f"), note=paths)]
        if any(one.filters.any() or one.channels.any() for one in measured.of(Census).values()):
            dead = over(filters, channels, ylabel="dead units")
            units = "Filters without a live weight. Dashed: channels without one."
            pictures.append(
                figure("Dead units", dead, alt=describe_values(filters, "d"), note=units)
            )
        body += [
            html.table(rows, caption="Whole network"),
            grid(*pictures),
            number_tables(
                {n: one.layers() for n, one in measured.of(Census).items()}, "Every layer"
            ),
        ]
    return Section(
        "masks", "Sparsity and dead units", "".join([*body, _failed(measured, "census")])
    )


def activity(measured: Measured, line_styles: LineStyles) -> Section:
    """Return the section on activations that are zero and on dead channels."""
    results = measured.of(Activations)
    body = [legend(results, line_styles)]
    if results:
        one = next(iter(results.values()))
        shares = {
            "Exactly 0": {n: (a.names, 100 * a.zeros) for n, a in results.items()},
            f"At most {one.threshold:g}": {n: (a.names, 100 * a.small) for n, a in results.items()},
            "Dead channels": {n: (a.names, 100 * a.dead) for n, a in results.items()},
        }
        dead = np.concatenate([a.dead for a in results.values()])
        if not (dead > 0).any():
            del shares["Dead channels"]
        if (dead == 0).all():
            body.append(text("No channel is dead: each is active for at least one sample."))
        body.append(
            grid(*(_shares(title, values, line_styles) for title, values in shares.items()))
        )
        body.append(classes.inactive_channels(results))
        body.append(number_tables({name: a.table() for name, a in results.items()}))
        body.append(classes.extremes(results))
    return Section("activations", "Activations", "".join([*body, _failed(measured, "activations")]))


def _shares(title: str, values: Lines, line_styles: LineStyles) -> str:
    most = max(1.0, *(float(np.nan_to_num(share).max()) for _, share in values.values()))
    limits = (-0.03 * most, 1.05 * most)
    chart = charts.over_depth(
        values, part="block", ylabel="share (%)", line_styles=line_styles, limits=limits
    )
    note = "In percent of a block's " + ("channels." if title == "Dead channels" else "outputs.")
    return figure(title, chart, alt=describe_values(values, ".1f"), note=note)


def gradients(measured: Measured, line_styles: LineStyles) -> Section:
    """Return the section on the gradient of live weights, and of dead ones if they were live."""
    results = measured.of(Gradflow)
    dead = {name: flow for name, flow in results.items() if flow.dead_counts.any()}
    body = []
    if results:
        norm = _both(
            "Norm",
            {name: (flow.names, flow.flow) for name, flow in results.items()},
            {name: (flow.names, flow.dead_flow) for name, flow in dead.items()},
            line_styles,
            note="Norm of the gradient of each layer.",
        )
        each = _both(
            "Per weight",
            {name: (flow.names, flow.per_weight) for name, flow in results.items()},
            {name: (flow.names, flow.dead_per_weight) for name, flow in dead.items()},
            line_styles,
            note="The norm divided by the square root of the number of weights.",
        )
        body = [
            text(
                "Gradient of the loss with respect to the live weights, by layer."
                + " Dashed: with respect to the dead weights." * bool(dead)
            ),
            legend(results, line_styles),
            grid(norm, each),
            number_tables({name: flow.table() for name, flow in results.items()}),
        ]
    return Section("gradients", "Gradient flow", "".join([*body, _failed(measured, "gradflow")]))


def _both(title: str, live: Lines, dead: Lines, line_styles: LineStyles, *, note: str) -> str:
    chart = charts.over_depth(
        live, dead, part="layer", ylabel="gradient", line_styles=line_styles, log=True
    )
    alt = describe_values(live | {f"{name}, dead": line for name, line in dead.items()}, ".2g")
    return figure(title, chart, alt=alt, note=note)


def signals(measured: Measured, line_styles: LineStyles) -> Section:
    """Return the section on the size of outputs and gradients and the similarity of samples."""
    results = measured.of(Signal)
    body = []
    if results:
        over = partial(charts.over_depth, part="block", line_styles=line_styles, size=charts.THIRD)
        sizes: Lines = {name: (one.names, one.rms) for name, one in results.items()}
        angles: Lines = {name: (one.names, one.cosine) for name, one in results.items()}
        slopes: Lines = {name: (one.names, one.gradient) for name, one in results.items()}
        low = min(0.0, *(float(np.nan_to_num(one.cosine).min()) for one in results.values()))
        pictures = [
            figure(
                "Outputs",
                over(sizes, ylabel="root mean square", log=True),
                alt=describe_values(sizes, ".3g"),
                note="Root mean square of the outputs of each block.",
            ),
            figure(
                "Between samples",
                over(angles, ylabel="mean cosine", limits=(low - 0.03, 1.03)),
                alt=describe_values(angles, ".2f"),
                note="Mean cosine between the outputs of two samples; 1: all samples look alike.",
            ),
            figure(
                "Gradient",
                over(slopes, ylabel="root mean square", log=True),
                alt=describe_values(slopes, ".2g"),
                note="Root mean square of the gradient with respect to the outputs.",
            ),
        ]
        body = [
            text("Outputs of each block, and the gradient of the loss with respect to them."),
            legend(results, line_styles),
            grid(*pictures, columns=3),
            number_tables({name: one.table() for name, one in results.items()}),
        ]
    return Section("signal", "Signal propagation", "".join([*body, _failed(measured, "signal")]))


def _failed(measured: Measured, what: str) -> str:
    return missing(measured.failed.get(what, {}))
