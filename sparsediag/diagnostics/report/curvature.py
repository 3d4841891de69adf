"""Curvature: the largest eigenvalues of each net with their certificate, and the density."""

from __future__ import annotations

from sparsediag.core import html
from sparsediag.diagnostics.report import charts
from sparsediag.diagnostics.report.charts import Looks, told
from sparsediag.diagnostics.report.measure import Measured
from sparsediag.diagnostics.report.parts import Section, figure, grid, key, missing, text
from sparsediag.diagnostics.spectrum import Spectrum


def curvature(found: Measured, looks: Looks) -> Section:
    """The top eigenvalues with their certificate, and the density."""
    kept = found.of(Spectrum)
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
            body.append(html.table(one.table(), caption=f"{name}: {verdict}"))
    body.append(missing(found.failed.get("spectrum", {})))
    return Section("curvature", "Curvature", "".join(body))
