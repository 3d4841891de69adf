"""Scenes: the loss along eigenvectors, and on a plane: to turn around, and as contours to print."""

from __future__ import annotations

import json
import math
from html import escape
from typing import Any

import numpy as np

from sparsediag.core import html
from sparsediag.diagnostics.landscape import Landscape
from sparsediag.diagnostics.perturbation import Perturbation
from sparsediag.diagnostics.report import charts
from sparsediag.diagnostics.report.charts import Curve, Looks, told
from sparsediag.diagnostics.report.measure import Measured
from sparsediag.diagnostics.report.parts import (
    Section,
    figure,
    grid,
    key,
    missing,
    numbers,
    sign,
    text,
)
from sparsediag.plotting import style, svg

DIGITS = 4  # of a number in a surface


def eigenvectors(found: Measured, looks: Looks) -> Section:
    """The loss along the top eigenvectors, beside what gradient and curvature predict."""
    kept = found.of(Perturbation)
    drawn = []
    for i in range(max((len(one.loss) for one in kept.values()), default=0)):
        solid: dict[str, Curve] = {
            n: (p.distance, p.loss[i]) for n, p in kept.items() if i < len(p.loss)
        }
        dashed: dict[str, Curve] = {
            n: (p.distance, p.quadratic[i]) for n, p in kept.items() if i < len(p.loss)
        }
        chart = charts.lines(
            solid,
            dashed,
            across="distance",
            up="loss",
            looks=looks,
            size=charts.THIRD,
            limits=_limits([y for _, y in solid.values()]),
        )
        values = ", ".join(f"{kept[name].eigenvalues[i]:.3g}" for name in solid)
        note = f"Eigenvalue{'s' * (len(solid) > 1)} {values}."
        drawn.append(figure(f"Eigenvector {i + 1}", chart, alt=told(solid, ".3g"), note=note))
    how = "Solid: the loss. Dashed: what gradient and curvature at the weights predict."
    body = [text(how), key(kept, looks), grid(*drawn, columns=3)] if kept else []
    body.append(numbers({name: one.table() for name, one in kept.items()}))
    body.append(missing(found.failed.get("perturbation", {})))
    return Section("eigenvectors", "Eigenvectors", "".join(body))


def _limits(losses: list[np.ndarray]) -> tuple[float, float] | None:
    seen = np.concatenate([loss[np.isfinite(loss)] for loss in losses])
    if not seen.size:
        return None
    pad = 0.05 * np.ptp(seen) or 1.0
    return float(seen.min() - pad), float(seen.max() + pad)


def planes(found: Measured, looks: Looks) -> Section:
    """Landscapes on common axes and colours, and how they compare."""
    kept = found.of(Landscape)
    body = []
    if kept:
        one = next(iter(kept.values()))
        body.append(
            text(
                "The loss on the plane of two random directions that are zero on dead weights; "
                f"distances in {one.unit}. All nets have the same axes and colours."
            )
        )
        levels = style.loss_levels(*(found.loss for found in kept.values()))
        drawn = [_plane(name, one, levels, looks) for name, one in kept.items()]
        body.append(f'<div class="planes">{"".join(drawn)}</div>')
    if found.comparison:
        rises = {
            name: (found.comparison.radii, rise)
            for name, rise in zip(found.comparison.names, found.comparison.rises, strict=True)
        }
        distance = f"distance ({found.comparison.unit})"
        chart = charts.lines(rises, across=distance, up="mean rise", looks=looks, log=True)
        rising = figure(
            "Mean rise of the loss", chart, alt=told(rises, ".3g"), note="All around each net."
        )
        table = html.table(found.comparison.table(), caption="How the loss rises around each net")
        body += ["<h3>Side by side</h3>", key(kept, looks), table, grid(rising)]
    body.append(numbers({name: one.table() for name, one in kept.items()}))
    body += [missing(found.failed.get(what, {})) for what in ("landscape", "comparison")]
    return Section("landscape", "Loss landscape", "".join(body))


def _plane(name: str, one: Landscape, levels: np.ndarray, looks: Looks) -> str:
    """The surface and the contours of one net."""
    finite = one.loss[np.isfinite(one.loss)]
    low, high = finite.min(initial=np.inf), finite.max(initial=-np.inf)
    about = f"The loss is {one.centre:.3g} at the weights, and from {low:.3g} to {high:.3g} around."
    flat = svg.inline_svg(charts.contours(one, levels), alt=f"Contours of {name}. {about}")
    data = json.dumps(scene(one, levels)).replace("<", "\\u003c")
    hint = "Drag or use the arrow keys to turn it."
    return (
        f'<figure class="plane"><figcaption><b>{sign(name, looks)} {escape(name)}.</b> '
        f'{escape(about)} <span class="turn-hint">{hint}</span></figcaption><div class="grid of2">'
        f'<div class="turn" tabindex="0" role="img" aria-label="'
        f'{escape(f"Surface of {name}. {about} {hint}")}">'
        f'<script type="application/json">{data}</script></div>{flat}</div></figure>'
    )


def scene(one: Landscape, levels: np.ndarray) -> dict[str, Any]:
    """Return what plotly draws: a surface whose heights and colours have the levels' range.

    Where they go over a decade or more, the heights are the logarithm of the loss.
    """
    x, y = one.axes
    log = levels[0] > 0 and levels[-1] >= 10 * levels[0]
    height = np.log10(np.maximum(one.loss, levels[0])) if log else one.loss
    low, high = (np.log10(levels[[0, -1]]) if log else levels[[0, -1]]).tolist()
    surface = {
        "type": "surface",
        "x": _plain(x),
        "y": _plain(y),
        "z": [_plain(row) for row in height.T],
        "text": [[f"{loss:.3g}" for loss in row] for row in one.loss.T],
        "hovertemplate": "%{x:.2f}, %{y:.2f}: loss %{text}<extra></extra>",
        "cmin": low,
        "cmax": high,
        "colorscale": "Cividis",
        "showscale": False,
    }
    right, up = one.labels
    vertical: dict[str, Any] = {"title": {"text": "loss"}, "range": [low, high]}
    if log:
        tens = range(math.ceil(low), math.floor(high) + 1)
        vertical |= {"tickvals": list(tens), "ticktext": [f"{10.0**ten:g}" for ten in tens]}
    axes = {"xaxis": {"title": {"text": right}}, "yaxis": {"title": {"text": up}}}
    return {"data": [surface], "scene": axes | {"zaxis": vertical}}


def _plain(values: np.ndarray) -> list[float | None]:
    """Numbers in few digits; None where they are not finite."""
    return [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in values.tolist()]
