"""Report section on the largest eigenvalues with their certificates, and the spectral density."""

from __future__ import annotations

from sparsediag.core import html
from sparsediag.diagnostics.report import charts
from sparsediag.diagnostics.report.charts import LineStyles, describe_values
from sparsediag.diagnostics.report.measure import Measured
from sparsediag.diagnostics.report.parts import Section, figure, grid, legend, missing, text
from sparsediag.diagnostics.spectrum import Spectrum


def curvature_section(measured: Measured, line_styles: LineStyles) -> Section:
    """Return the section on the top eigenvalues with their certificates, and the density."""
    results = measured.of(Spectrum)
    body = []
    if results:
        values = {
            n: (list(range(1, len(s.eigenvalues) + 1)), s.eigenvalues) for n, s in results.items()
        }
        top = figure(
            "Largest eigenvalues",
            charts.eigenvalues(results, line_styles),
            alt=describe_values(values, ".3g"),
            note="Bars: an eigenvalue lies within. Hollow: not converged.",
        )
        density = figure(
            "Density",
            charts.densities(results, line_styles),
            alt="; ".join(
                f"{n}: from {s.lowest:.3g} to {s.eigenvalues[0]:.3g}" for n, s in results.items()
            ),
            note="Density of the whole spectrum, estimated from random start vectors.",
        )
        body += [
            text("The Hessian of the loss with respect to the live weights."),
            legend(results, line_styles),
            grid(top, density),
        ]
        for name, one in results.items():
            verdict = "converged" if one.converged else "NOT converged"
            body.append(html.table(one.table(), caption=f"{name}: {verdict}"))
    body.append(missing(measured.failed.get("spectrum", {})))
    return Section("curvature", "Curvature", "".join(body))
