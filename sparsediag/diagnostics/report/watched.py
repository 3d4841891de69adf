"""Report section on the rows that a Watch wrote: curves over the steps, and the last values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from matplotlib.figure import Figure

from sparsediag.checkpoint.model_folder import is_model_folder
from sparsediag.checkpoint.watch_file import is_watch_file
from sparsediag.diagnostics.recording import Recording, read_watch
from sparsediag.diagnostics.report.charts import describe_values, line_styles
from sparsediag.diagnostics.report.nets import Given
from sparsediag.diagnostics.report.parts import Section, figure, grid, legend, number_tables, text

MARKS = "Hollow: not converged. Cross: not finite. Pale: range of the rows around a median."


def split_sources(sources: Given) -> tuple[Given, Recording | None]:
    """Return the networks among files, and the rows of trainings in the others.

    A folder with a `watch.jsonl` stands for these rows, and its best checkpoint if it has one.
    """
    named = isinstance(sources, Mapping)
    if isinstance(sources, str | Path):
        sources = [sources]
    pairs: list[tuple[str, Any]] = (
        list(sources.items()) if isinstance(sources, Mapping) else [("", one) for one in sources]
    )
    nets, files = [], []
    for name, source in pairs:
        file = _watch_file(source)
        net = _checkpoint(Path(source)) if file else source
        files += [(name, file)] if file else []
        nets += [(name, net)] if net is not None else []
    labels = [name for name, _ in files] if named else None
    recording = read_watch(*(file for _, file in files), labels=labels) if files else None
    return dict(nets) if named else [one for _, one in nets], recording


def _watch_file(source: Any) -> Path | None:
    """Return the file with rows that was given, or that is in the folder that was given."""
    if not isinstance(source, str | Path):
        return None
    inside = Path(source, "watch.jsonl")
    return inside if inside.exists() else Path(source) if is_watch_file(source) else None


def _checkpoint(path: Path) -> Path | None:
    """Return the network in a folder with rows; None if there is none, or it is no folder."""
    if is_model_folder(path):
        return path
    return next((f for f in (path / "best.pt", path / "last.pt") if f.exists()), None)


def watched(recording: Recording) -> Section:
    """Return the section: a picture of each group of numbers, and a table of the last ones."""
    pictures = []
    for panel, curves in recording.panel_curves().items():
        picture = cast(Figure, recording.plot(panel=panel).figure)
        several = len(recording.labels) > 1
        values = {f"{c.name}{f', {c.training}' * several}": (c.steps, c.values) for c in curves}
        title = panel[0].upper() + panel[1:]
        pictures.append(figure(title, picture, alt=describe_values(values, ".3g")))
    body = [
        text(f"{recording.provenance}. {MARKS}"),
        legend(recording.labels, line_styles(recording.labels)),
        grid(*pictures, columns=3),
        *(text(line) for line in recording.remarks()),
        number_tables({"Last values": recording.table()}),
    ]
    return Section("watch", "During the training", "".join(body))
