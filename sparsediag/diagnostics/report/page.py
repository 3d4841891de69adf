"""The page of a report: one file that loads nothing, with static contours without JavaScript."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import cast

from matplotlib.figure import Figure

from sparsediag.core import html
from sparsediag.diagnostics.landscape import Landscape
from sparsediag.diagnostics.report import layers, scenes, summary
from sparsediag.diagnostics.report.charts import line_styles
from sparsediag.diagnostics.report.curvature import curvature_section
from sparsediag.diagnostics.report.measure import Measured
from sparsediag.diagnostics.report.parts import Section, figure, missing, text
from sparsediag.diagnostics.report.training import training
from sparsediag.diagnostics.report.watched import watched
from sparsediag.diagnostics.result import provenance
from sparsediag.plotting import interactive, style

HERE = Path(__file__).parent
# a section and the diagnostic that it is about; any other diagnostic gets a plain section
MAKERS = {
    "landscape": scenes.planes,
    "": training,
    "census": layers.masks,
    "activations": layers.activity,
    "gradflow": layers.gradients,
    "signal": layers.signals,
    "spectrum": curvature_section,
    "perturbation": scenes.eigenvectors,
}

NOT_MEASURED = ("findings", "training", "watch", "masks", "provenance")  # sections without samples


def page(measured: Measured) -> str:
    """Return the HTML of the report."""
    styles = line_styles(list(measured.nets))
    sections = [make(measured, styles) for make in MAKERS.values() if measured.nets]
    recorded = measured.recording
    sections[2:2] = [watched(recorded)] if recorded else []  # after the training
    sections += [plain_section(what, measured) for what in measured.results if what not in MAKERS]
    parts = [summary.findings(measured), *sections, summary.provenance(measured)]
    links = "".join(f'<li><a href="#{p.id}">{escape(p.title)}</a></li>' for p in parts)
    names = ", ".join(measured.nets or (recorded.labels if recorded else []))
    about = _measured_on(measured)
    scripts = interactive.scripts() if measured.of(Landscape) else ""
    body = (
        '<a class="skip" href="#main">Skip to the report</a>'
        f'<header><p class="kind">sparsediag report</p><h1>{escape(names)}</h1>'
        f"<p>{escape(about)}</p></header>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>'
        f'<main id="main" tabindex="-1">'
        + (summary.summary(measured, styles) if measured.nets else "")
        + "".join(part.html("" if part.id in NOT_MEASURED else about) for part in parts)
        + "</main>"
        + f"{scripts}<script>{(HERE / 'page.js').read_text()}</script>"
    )
    style = interactive.CSS + (HERE / "page.css").read_text()
    return html.page(
        f"{names} \N{EN DASH} sparsediag report", body, style=style, head=interactive.STILL
    )


def plain_section(what: str, measured: Measured) -> Section:
    """Return the section of a diagnostic: a picture and a table for each network."""
    body = []
    for name, result in measured.results[what].items():
        if result.has_plot:
            with style.style():
                picture = cast(Figure, result.plot().figure)
            body.append(figure(name, picture, alt=f"The picture of the {what}."))
        body.append(html.table(result.table(), caption=name))
        body += [text(line) for line in result.remarks()]
    body.append(missing(measured.failed.get(what, {})))
    return Section(what, what.capitalize(), "".join(body))


def _measured_on(measured: Measured) -> str:
    """Return in a line what was measured, for each network if it differs."""
    problems = [net.problem for net in measured.nets.values() if net.problem]
    return "; ".join(dict.fromkeys(provenance(problem.about) for problem in problems))
