"""Report sections on the loss along eigenvectors and on a plane (3D surface and contours)."""

from __future__ import annotations

from html import escape

import numpy as np

from sparsediag.core import html
from sparsediag.diagnostics.landscape import Landscape
from sparsediag.diagnostics.perturbation import Perturbation
from sparsediag.diagnostics.report import charts
from sparsediag.diagnostics.report.charts import Curve, LineStyles, describe_values
from sparsediag.diagnostics.report.measure import Measured
from sparsediag.diagnostics.report.parts import (
    Section,
    figure,
    grid,
    legend,
    marker,
    missing,
    number_tables,
    text,
)
from sparsediag.plotting import interactive, style, svg


def eigenvectors(measured: Measured, line_styles: LineStyles) -> Section:
    """Return the section on the loss along the top eigenvectors, with its quadratic model."""
    results = measured.of(Perturbation)
    pictures = []
    for i in range(max((len(one.loss) for one in results.values()), default=0)):
        solid: dict[str, Curve] = {
            n: (p.distance, p.loss[i]) for n, p in results.items() if i < len(p.loss)
        }
        dashed: dict[str, Curve] = {
            n: (p.distance, p.quadratic[i]) for n, p in results.items() if i < len(p.loss)
        }
        chart = charts.lines(
            solid,
            dashed,
            xlabel="distance",
            ylabel="loss",
            line_styles=line_styles,
            size=charts.THIRD,
            limits=_limits([y for _, y in solid.values()]),
        )
        values = ", ".join(f"{results[name].eigenvalues[i]:.3g}" for name in solid)
        note = f"Eigenvalue{'s' * (len(solid) > 1)} {values}."
        pictures.append(
            figure(f"Eigenvector {i + 1}", chart, alt=describe_values(solid, ".3g"), note=note)
        )
    caption = "Solid: the loss. Dashed: its quadratic model, from gradient and curvature."
    body = (
        [text(caption), legend(results, line_styles), grid(*pictures, columns=3)] if results else []
    )
    body.append(number_tables({name: one.table() for name, one in results.items()}))
    body.append(missing(measured.failed.get("perturbation", {})))
    return Section("eigenvectors", "Eigenvectors", "".join(body))


def _limits(losses: list[np.ndarray]) -> tuple[float, float] | None:
    seen = np.concatenate([loss[np.isfinite(loss)] for loss in losses])
    if not seen.size:
        return None
    pad = 0.05 * np.ptp(seen) or 1.0
    return float(seen.min() - pad), float(seen.max() + pad)


def planes(measured: Measured, line_styles: LineStyles) -> Section:
    """Return the section on landscapes with common axes and colours, and their comparison."""
    results = measured.of(Landscape)
    body = []
    if results:
        one = next(iter(results.values()))
        body.append(
            text(
                "The loss on the plane of two random directions that are zero on dead weights; "
                f"distances in {one.unit}."
                + " All networks have the same axes and colours."
                * (len(results) > 1)
            )
        )
        levels = style.loss_levels(*(one.loss for one in results.values()))
        pictures = [_plane(name, one, levels, line_styles) for name, one in results.items()]
        body.append(f'<div class="planes">{"".join(pictures)}</div>')
    if measured.comparison:
        rises = {
            name: (measured.comparison.radii, rise)
            for name, rise in zip(measured.comparison.names, measured.comparison.rises, strict=True)
        }
        distance = f"distance ({measured.comparison.unit})"
        chart = charts.lines(
            rises, xlabel=distance, ylabel="mean rise", line_styles=line_styles, log=True
        )
        rising = figure(
            "Mean rise of the loss",
            chart,
            alt=describe_values(rises, ".3g"),
            note="Mean over all directions of the plane, by distance from the weights.",
        )
        table = html.table(
            measured.comparison.table(), caption="Rise of the loss around each network"
        )
        body += ["<h3>Side by side</h3>", legend(results, line_styles), table, grid(rising)]
    body.append(number_tables({name: one.table() for name, one in results.items()}))
    body += [missing(measured.failed.get(what, {})) for what in ("landscape", "comparison")]
    return Section("landscape", "Loss landscape", "".join(body))


def _plane(name: str, one: Landscape, levels: np.ndarray, line_styles: LineStyles) -> str:
    """Return the surface and the contours of one network."""
    finite = one.loss[np.isfinite(one.loss)]
    low, high = finite.min(initial=np.inf), finite.max(initial=-np.inf)
    about = f"The loss is {one.centre:.3g} at the weights, and from {low:.3g} to {high:.3g} around."
    flat = svg.inline_svg(charts.contours(one, levels), alt=f"Contours of {name}. {about}")
    turn = interactive.rotatable(
        interactive.landscape_figure(one, levels), f"Surface of {name}. {about} {interactive.HINT}"
    )
    return (
        f'<figure class="plane"><figcaption><b>{marker(name, line_styles)} {escape(name)}.</b> '
        f'{escape(about)} <span class="turn-hint">{interactive.HINT}</span></figcaption>'
        f'<div class="grid of2">{turn}{flat}</div></figure>'
    )
