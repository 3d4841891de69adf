"""Recording: the rows that a `Watch` wrote while one or several networks trained."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsediag.checkpoint.labels import file_labels, run_labels
from sparsediag.checkpoint.watch_file import WatchFile, read_watch_file
from sparsediag.core.atomic import atomic_write
from sparsediag.core.errors import unknown_name
from sparsediag.core.version import __version__
from sparsediag.diagnostics.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sparsediag.plotting.curves import Curve

PANELS = {  # label of a panel -> names of the metrics in it; others are grouped by their first part
    "loss": r"(.*_)?loss|objective",
    "accuracy": r".*accuracy",
    "learning rate": r"lr(/.*)?",
    "gradient norm": r"gradient/.*|.*_flow",
    "gradient norm, probe": r"probe_gradient/.*",
    "|update| / |weight|": r"update/.*",
    "zero activations": r"(probe_)?activations/zeros",
    "dead units": r"(probe_)?activations/dead",
    "zeros by module": r"activations/zeros/.*",
    "dead units by module": r"activations/dead/.*",
    "zeros by module, probe": r"probe_activations/zeros/.*",
    "dead units by module, probe": r"probe_activations/dead/.*",
    "mask": r"mask/(density|turnover|survival)|sparsity.*",
    "dead weights not 0": r"mask/dead_not_zero",
    "Hessian eigenvalue": r"eigenvalue(/\d+)?",
    "noise scale (samples)": r"noise/scale",
}
NOT_DRAWN = r"epoch|watch_seconds|.*_residual"
BY_MODULE = r"(probe_)?activations/\w+/.*"
SUFFIX = "_not_converged"
NONE, CONVERGED, DOUBTFUL = 0, 1, 2  # kinds of entries
MARKS = 25  # vertical lines for epochs


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording(Result):
    """Rows of numbers of one or several trainings.

    Attributes:
        labels: Names of the trainings.
        files: Their files.
        axis: What the rows are numbered by: "step", or "epoch" if they have no step.
        headers: What each file says was watched.
        lengths: Number of rows of each training.
        steps: Step or epoch of each row, one training after the other, (rows,).
        names: The metrics.
        values: Numbers, (rows, metrics); nan where there is none or it was not finite.
        entries: 0 where a row has no such number, 1 where it has, 2 where it did not converge,
            (rows, metrics).
        notes: What was told about each file, such as why a metric failed.
    """

    labels: list[str]
    files: list[str]
    axis: str
    headers: list[dict[str, Any]]
    lengths: list[int]
    steps: np.ndarray
    names: list[str]
    values: np.ndarray
    entries: np.ndarray
    notes: list[list[str]]

    def curve(self, name: str, label: str | None = None) -> Curve:
        """Return a metric of a training: steps, values, and where they converged.

        Args:
            name: The metric, such as "loss".
            label: The training (default: the first).

        Raises:
            ValueError: If there is no such metric or training.
        """
        from sparsediag.plotting.curves import Curve

        if name not in self.names:
            raise ValueError(unknown_name("metric", name, self.names))
        label = self.labels[0] if label is None else label
        if label not in self.labels:
            raise ValueError(unknown_name("training", label, self.labels))
        i, j = self.labels.index(label), self.names.index(name)
        start = sum(self.lengths[:i])
        rows = slice(start, start + self.lengths[i])
        entries = self.entries[rows, j]
        there = entries != NONE
        values = self.values[rows, j][there]
        return Curve(name, label, self.steps[rows][there], values, entries[there] == CONVERGED)

    def table(self, width: int = 20) -> list[dict[str, Any]]:
        """Return one row for each metric: its last value, its change, and a small curve.

        Args:
            width: Letters of the curve.
        """
        several = len(self.labels) > 1
        rows = []
        names = [name for name in self.names if name != "epoch"]
        for name in sorted(names, key=lambda name: bool(re.fullmatch(BY_MODULE, name))):
            row = {"metric": name}
            for label in self.labels:
                of = f", {label}" if several else ""
                cells = _cells(self.curve(name, label), width)
                row |= {f"{head}{of}": cell for head, cell in cells.items()}
            rows.append(row)
        return rows

    @property
    def title(self) -> str:
        """Return network, weights and density, as far as all trainings have the same."""
        words = {"net": "{}", "weights": "{:,} weights", "density": "density {:.3g}"}
        shared = {key: {header.get(key) for header in self.headers} for key in words}
        known = {key: values.pop() for key, values in shared.items() if len(values) == 1}
        return ", ".join(
            words[key].format(value) for key, value in known.items() if value not in (None, 1.0)
        )

    @property
    def provenance(self) -> str:
        """Return in a line the rows of each training."""
        return "; ".join(self._rows(i) for i in range(len(self.labels)))

    def _rows(self, i: int) -> str:
        label, header, number = self.labels[i], self.headers[i], self.lengths[i]
        last = self.steps[sum(self.lengths[: i + 1]) - 1] if number else 0
        every = f", every {header['every']}" if "every" in header else ""
        probe = f", probe of {n:,} samples" if (n := header.get("probe_samples")) else ""
        epoch = ""
        if self.axis == "step" and "epoch" in self.names:
            epochs = self.curve("epoch", label).values
            epoch = f" in epoch {epochs[-1]:g}" if len(epochs) else ""
        rows = f"{self.axis} {last:,.0f}{epoch}, {number:,} row{'s' * (number != 1)}{every}{probe}"
        return f"{label}: {rows}" if len(self.labels) > 1 else rows

    @property
    def doubts(self) -> list[str]:
        """Return what is wrong in the rows: numbers not finite, and dead weights that are not 0."""
        lines = []
        for label in self.labels:
            of = f"{label}: " if len(self.labels) > 1 else ""
            for name in self.names:
                curve = self.curve(name, label)
                bad = curve.steps[~np.isfinite(curve.values) & curve.converged]
                if len(bad):
                    part = f"{len(bad):,} of {len(curve.steps):,} rows"
                    lines.append(f"{of}{name} is not finite in {part}{self._since(bad)}")
                moved = curve.steps[curve.values > 0]
                if name == "mask/dead_not_zero" and len(moved):
                    lines.append(f"{of}dead weights are not 0{self._since(moved)}")
        return lines

    def _since(self, steps: np.ndarray) -> str:
        return f", first at {self.axis} {steps[0]:,.0f}"

    def remarks(self) -> list[str]:
        """Return the doubts, what did not converge, and what the files tell."""
        lines = [f"doubt: {line}" for line in self.doubts]
        for i, label in enumerate(self.labels):
            of = f"{label}: " if len(self.labels) > 1 else ""
            curves = [self.curve(name, label) for name in self.names]
            counts = [
                f"{c.name} in {(~c.converged).sum():,} of {len(c.steps):,} rows"
                for c in curves
                if not c.converged.all()
            ]
            lines += [f"{of}* not converged: {'; '.join(counts)}"] if counts else []
            lines += [f"{of}{note}" for note in self.notes[i]]
        return lines

    def plot(self, ax: Axes | None = None, *, panel: str | None = None) -> Axes:
        """Draw all panels on a new figure, or one of them; return the first axes.

        Args:
            ax: Where to draw one panel; a new figure if None.
            panel: Its name, such as "loss" (default with `ax`: the first one).

        Raises:
            ValueError: If there is no such panel.
        """
        from sparsediag.plotting import curves, style

        panels, (marks, xlabel) = self.panel_curves(), self._epoch_marks()
        if panel is None and ax is None:
            return curves.plot_panels(panels, xlabel=xlabel, marks=marks)[0]
        panel = panel or next(iter(panels))
        if panel not in panels:
            raise ValueError(unknown_name("panel", panel, panels))
        ax = ax or style.new_axes()
        curves.plot_panel(ax, panel, panels[panel], trainings=self.labels, marks=marks)
        ax.set_xlabel(xlabel)
        return ax

    def panel_curves(self) -> dict[str, list[Curve]]:
        """Return the curves of each panel; what is 0 throughout is left out."""
        groups: dict[str, list[str]] = {label: [] for label in PANELS}
        for name in self.names:
            if not re.fullmatch(NOT_DRAWN, name):
                known = (label for label, names in PANELS.items() if re.fullmatch(names, name))
                own = name.partition("/")[0].replace("_", " ")
                groups.setdefault(next(known, own), []).append(name)
        panels = {}
        nonzero = np.any((self.values != 0) & (self.entries != NONE), axis=0)
        for panel, every in groups.items():
            names = [name for name in every if nonzero[self.names.index(name)]]
            curves = [
                curve._replace(name=short)
                for name, short in zip(names, _short_names(names), strict=True)
                for curve in (self.curve(name, label) for label in self.labels)
                if len(curve.steps)
            ]
            if curves:
                panels[panel] = curves
        if not panels:
            raise ValueError(f"{', '.join(self.files)}: no number to draw")
        return panels

    def _epoch_marks(self) -> tuple[list[float], str]:
        """Return where epochs begin, if all trainings agree, and the label of the x axis."""
        if self.axis == "epoch" or "epoch" not in self.names:
            return [], self.axis
        begins = []
        for label in self.labels:
            _, _, steps, values, _ = self.curve("epoch", label)
            new = np.flatnonzero(np.diff(np.floor(values)) > 0)
            begins.append(((steps[new] + steps[new + 1]) / 2).tolist())
        longest = max(begins, key=len)
        if not longest or any(own != longest[: len(own)] for own in begins):
            return [], self.axis
        every = -(-len(longest) // MARKS)
        text = "a line for each epoch" if every == 1 else f"a line for every {every} epochs"
        return longest[every - 1 :: every], f"step ({text})"

    def exports(self) -> dict[str, Callable[[Path], Path]]:
        """Return a function that writes the rows as CSV, with the names that they had."""
        return {"csv": partial(_write_csv, self)}


def read_watch(*files: str | Path, labels: Sequence[str] | None = None) -> Recording:
    """Return the rows that one or several trainings have written so far.

    Args:
        files: Files of a `Watch`, or folders with a `watch.jsonl` or `history.jsonl`.
        labels: Names of the trainings (default: what tells them apart).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If one is no file of a Watch, or some have steps and others only epochs.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "watch.jsonl")
    ...     written = file.write_text('{"step": 5, "loss": 2.3}\\n{"step": 10, "loss": 1.9}\\n{"st')
    ...     read_watch(file).curve("loss").values
    array([2.3, 1.9])
    """
    if not files:
        raise ValueError("no file given; need one that sd.Watch writes, such as watch.jsonl")
    if labels and (len(labels), len(set(labels))) != (len(files), len(files)):
        raise ValueError(f"labels={labels}: need {len(files)} different names")
    given = [read_watch_file(file) for file in files]
    axes = {file.axis: file for file in given}
    if len(axes) > 1:
        raise ValueError(
            f"{axes['step'].path} has steps and {axes['epoch'].path} only epochs; give them one "
            "by one"
        )
    axis, rows = given[0].axis, [row for file in given for row in file.rows]
    keys = dict.fromkeys(key for row in rows for key in row if key != axis)
    names = list(dict.fromkeys(key.removesuffix(SUFFIX) for key in keys))
    column = {key: names.index(key.removesuffix(SUFFIX)) for key in keys}
    values = np.full((len(rows), len(names)), np.nan)
    entries = np.full((len(rows), len(names)), NONE, dtype=np.int8)
    for i, row in enumerate(rows):
        for key, value in row.items():
            if key != axis:
                values[i, column[key]] = np.nan if value is None else value
                entries[i, column[key]] = DOUBTFUL if key.endswith(SUFFIX) else CONVERGED
    return Recording(
        labels=list(labels) if labels else _labels(given),
        files=[str(file.path) for file in given],
        axis=axis,
        headers=[file.header for file in given],
        lengths=[len(file.rows) for file in given],
        steps=np.array([row[axis] for row in rows], dtype=float),
        names=names,
        values=values,
        entries=entries,
        notes=[file.notes for file in given],
        source={"files": [str(file.path) for file in given], "sparsediag": __version__},
    )


def _labels(files: Sequence[WatchFile]) -> list[str]:
    """Return what tells the trainings apart: their run files, headers, or the files' names."""
    paths = [file.path for file in files]
    runs = [_read_run(path.parent / "run.toml") for path in paths]
    headers: list[dict[str, Any]] = [
        {"model": {"name": h.get("net")}, "weights": h.get("weights")}
        | {"mask": {"density": h.get("density")}}
        for h in (file.header for file in files)
    ]
    for described in (runs, headers) if len(files) > 1 else ():
        labels = run_labels(described) if all(described) else []
        if len(set(labels)) == len(files) and "" not in labels:
            return labels
    return file_labels(paths, runs if len(files) == 1 else [{}] * len(files))


def _read_run(path: Path) -> dict[str, Any]:
    """Return the description of a training in its folder; {} for a run file of another kind."""
    run = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return run if all(isinstance(run.get(key, {}), dict) for key in ("mask", "tweaks")) else {}


def _cells(curve: Curve, width: int) -> dict[str, str]:
    """Return the last value of a metric, its change, and a small curve of what converged.

    The change is that of the median over the last tenth of the rows, against the tenth before.
    """
    from sparsediag.plotting.curves import median, split_rows
    from sparsediag.plotting.terminal import sparkline

    if not len(curve.steps):
        return {"last": "", "change": "", "curve": ""}
    last = curve.values[-1]
    mark = "" if curve.converged[-1] else " *"
    good = np.where(curve.converged, curve.values, np.nan)
    parts = [median(part) for part in split_rows(good, width)]
    tenths = [median(part) for part in split_rows(good, 10)]
    return {
        "last": (f"{last:.4g}" if np.isfinite(last) else "not finite") + mark,
        "change": _change(*tenths[-2:]) if len(tenths) > 1 else "",
        "curve": sparkline(parts) if len(parts) > 1 else "",
    }


def _change(before: float, after: float) -> str:
    """Return a change in percent; as a difference where it would be none, or above 900.

    >>> _change(2.0, 1.5), _change(0.0, 0.5), _change(1.0, 1.0)
    ('-25 %', '+0.5', '')
    """
    if not np.isfinite([before, after]).all() or before == after:
        return ""
    if before > 0 and 0 < after < 10 * before:
        return f"{100 * (after / before - 1):+.2g} %"
    return f"{after - before:+.2g}"


def _short_names(names: Sequence[str]) -> list[str]:
    """Return the names for a legend, without the part that all have.

    >>> _short_names(["gradient/live", "probe_gradient/live"])
    ['live', 'live, probe']
    >>> _short_names(["eigenvalue/1", "update_curvature"])
    ['eigenvalue 1', 'update curvature']
    """
    groups = {name.rpartition("/")[0].removeprefix("probe_") for name in names}
    if len(groups) > 1 or groups == {""}:
        return [name.replace("/", " ").replace("_", " ") for name in names]
    probe = len({name.startswith("probe_") for name in names}) > 1
    return [
        name.rpartition("/")[2].replace("_", " ")
        + (", probe" if probe and name.startswith("probe_") else "")
        for name in names
    ]


def _write_csv(recording: Recording, path: Path) -> Path:
    """Write a row for each row of each training."""
    labels = np.repeat(recording.labels, recording.lengths)
    doubtful = (recording.entries == DOUBTFUL).any(axis=0)
    heads = ["training", recording.axis]
    columns: list[list[Any]] = [labels.tolist(), recording.steps.tolist()]
    for j, name in enumerate(recording.names):
        for kind, suffix in ((CONVERGED, ""), (DOUBTFUL, SUFFIX)):
            if kind == CONVERGED or doubtful[j]:
                chosen = recording.entries[:, j] == kind
                heads.append(name + suffix)
                columns.append(np.where(chosen, recording.values[:, j].astype(object), "").tolist())
    with atomic_write(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([heads, *zip(*columns, strict=True)])
    return path
