"""The summary: one row for each network, how reliable each number is, and sources."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np

from sparsediag.core import html
from sparsediag.core.version import __version__
from sparsediag.diagnostics.activations import Activations
from sparsediag.diagnostics.census import Census
from sparsediag.diagnostics.gradflow import Gradflow
from sparsediag.diagnostics.landscape import Landscape
from sparsediag.diagnostics.perturbation import Perturbation
from sparsediag.diagnostics.report.charts import LineStyles
from sparsediag.diagnostics.report.measure import Measured
from sparsediag.diagnostics.report.parts import Section, marker, number_tables, text
from sparsediag.diagnostics.report.training import checkpoint_row
from sparsediag.diagnostics.spectrum import Spectrum

NONE = "\N{EN DASH}"
HEADER = ("net", "weights", "started", "sparsediag", "torch")  # of a file of Watch
BEST = "Bold: the best of its column."
WHAT = (
    "All but the test accuracy is measured on the samples. Gradient flow: mean over the layers. "
    "Mean rise: over the landscape."
)
Value = Callable[[Measured, str], float]


def _middle(measured: Measured, name: str) -> float:
    one = measured.of(Perturbation)[name]
    return float(one.accuracy[0, len(one.distance) // 2])


def _rise(measured: Measured, name: str) -> float:
    one = measured.of(Landscape)[name]
    return float(one.loss[np.isfinite(one.loss)].mean() - one.centre)


# column -> value, format, and the best: highest (1), lowest (-1) or none (0)
COLUMNS: dict[str, tuple[Value, str, int]] = {
    "test accuracy": (lambda f, n: checkpoint_row(f.nets[n].checkpoint)["test_accuracy"], ".2%", 1),
    "sample accuracy": (_middle, ".2%", 0),
    "sample loss": (lambda f, n: f.of(Landscape)[n].centre, ".3g", 0),
    "density": (lambda f, n: f.of(Census)[n].alive.sum() / f.of(Census)[n].sizes.sum(), ".2%", 0),
    "top eigenvalue": (lambda f, n: f.of(Spectrum)[n].eigenvalues[0], ".3g", -1),
    "activations at 0": (lambda f, n: f.of(Activations)[n].zeros.mean(), ".1%", 0),
    "gradient flow": (lambda f, n: f.of(Gradflow)[n].mean, ".3g", 0),
    "mean rise of the loss": (_rise, ".3g", -1),
}
SECTIONS = {  # ids of sections that are not named after the diagnostic
    "census": "masks",
    "gradflow": "gradients",
    "spectrum": "curvature",
    "perturbation": "eigenvectors",
    "comparison": "landscape",
    "file": "provenance",
}
UNPROVED = ("held at 0", "--mask zeros", "is not of 0 and 1", "left out")  # conventions, fit


def summary(measured: Measured, line_styles: LineStyles) -> str:
    """Return one row for each network, with the best of a column in bold."""
    rows: list[dict[str, Any]] = [{"net": name} for name in measured.nets]
    best = set()
    for head, (value, form, sense) in COLUMNS.items():
        values = [_known(value, measured, name) for name in measured.nets]
        if np.isnan(values).all():
            continue
        cells = [NONE if np.isnan(v) else f"{v:{form}}" for v in values]
        for row, cell in zip(rows, cells, strict=True):
            row[head] = cell
        if sense and len(values) > 1:
            top = cells[int(np.nanargmax(sense * np.array(values)))]
            best |= {(i, head) for i, cell in enumerate(cells) if cell == top}
    table = html.table(rows, caption="Summary", best=best)
    for name in measured.nets:
        table = table.replace(f">{escape(name)}<", f">{marker(name, line_styles)} {escape(name)}<")
    return f'<div class="summary">{table}{text(f"{BEST} {WHAT}" if best else WHAT)}</div>'


def _known(value: Value, measured: Measured, name: str) -> float:
    try:
        return float(value(measured, name))
    except KeyError:
        return float("nan")


def findings(measured: Measured) -> Section:
    """Return the findings that limit how far the results can be trusted, then all remarks."""
    several = len(measured.nets) > 1
    items = [
        f"<li>{f'<b>{escape(name)}</b>, ' * several}"
        f'<a href="#{SECTIONS.get(what, what)}">{what}</a>: {escape(line)}</li>'
        for name in measured.nets
        for what, line in _doubts(measured, name)
    ]
    doubts = measured.recording.doubts if measured.recording else []
    items += [f'<li><a href="#watch">watch</a>: {escape(line)}</li>' for line in doubts]
    remarks = {
        name: [
            {"diagnostic": what, "remark": line}
            for what, result in measured.of_net(name).items()
            for line in result.remarks()
        ]
        for name in measured.nets
    }
    if measured.comparison:
        lines = measured.comparison.remarks()
        remarks["together"] = [{"diagnostic": "comparison", "remark": line} for line in lines]
    body = f"<ul>{''.join(items)}</ul>" if items else text("No check failed.")
    return Section("findings", "Findings", body + number_tables(remarks, "All remarks"))


def _doubts(measured: Measured, name: str) -> list[tuple[str, str]]:
    """Return the findings of one network, each with its diagnostic."""
    messages = [
        (what, reasons[name]) for what, reasons in measured.failed.items() if name in reasons
    ]
    notes = measured.nets[name].notes
    messages += [("file", line) for line in notes if any(words in line for words in UNPROVED)]
    for what, result in measured.of_net(name).items():
        messages += [(what, line) for line in result.findings]
    return messages


def provenance(measured: Measured) -> Section:
    """Return the section on files, digests, options and versions."""
    rows = []
    for name, net in measured.nets.items():
        problem, checkpoint = net.problem, net.checkpoint
        rows.append(
            {
                "net": name,
                "file": net.file or "in memory",
                "model": checkpoint.model or (type(problem.net).__name__ if problem else NONE),
                "data": checkpoint.data or NONE,
                "step": f"{checkpoint.step:,} of {checkpoint.steps:,}"
                if checkpoint.steps
                else NONE,
                "samples": f"{problem.samples:,}" if problem else NONE,
                "live weights": f"{problem.size:,}" if problem else NONE,
                "batch norm": problem.batch_norm if problem else NONE,
                "device": str(problem.device) if problem else NONE,
                "problem": problem.digest[:16] if problem else NONE,
                "made by": ", ".join(
                    f"{k} {v}" for k, v in checkpoint.made_by.items() if k != "mask"
                ),
            }
        )
    notes = [
        {"net": name, "note": line} for name, net in measured.nets.items() for line in net.notes
    ]
    options = {
        name: [
            {"diagnostic": what, "options": json.dumps(result.source.get("options", {}))}
            for what, result in measured.of_net(name).items()
        ]
        for name in measured.nets
    }
    runs = {
        f"The training of {name}": [
            {"key": key, "value": json.dumps(value)} for key, value in net.checkpoint.run.items()
        ]
        for name, net in measured.nets.items()
    }
    made = text(f"Made by sparsediag {__version__}.")
    body = [
        html.table(rows, caption="Networks"),
        html.table(_watch_files(measured), caption="Files of Watch"),
        html.table(notes, caption="Notes on reading the files"),
        number_tables(options, "Options of the diagnostics"),
        number_tables(runs, "Trainings"),
        made,
    ]
    return Section("provenance", "Provenance", "".join(body))


def _watch_files(measured: Measured) -> list[dict[str, Any]]:
    one = measured.recording
    if one is None:
        return []
    rows = zip(one.labels, one.files, one.headers, strict=True)
    return [
        {"training": label, "file": file} | {key: str(header.get(key, NONE)) for key in HEADER}
        for label, file, header in rows
    ]
