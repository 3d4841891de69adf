"""Shared by Figures 2 and 9: records of trainings over their epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.measurement import Need
from figures.tost._runs import run
from sparsediag.plotting import style

Row = Mapping[str, Any]
Results = Mapping[tuple[str, float, int], Sequence[Row]]
Value = Callable[[Row], float]
NEEDS = {
    (kind, 0.1, seed): Need(run(kind, 0.1, seed)) for kind in ("base", "ToST") for seed in range(3)
}
COLOURS = {"base": style.COLOUR_OF["sparse"], "ToST": style.COLOUR_OF["ToST"]}
NAMES = {"base": "plain sparse", "ToST": "ToST"}


def of(results: Results, kind: str) -> dict[int, Sequence[Row]]:
    """The histories of one kind of training, by seed."""
    return {seed: rows for (name, _, seed), rows in results.items() if name == kind}


def logs(rows: Sequence[Row], value: Value) -> np.ndarray:
    """Decimal logarithm of a record after each epoch; NaN where it is not positive."""
    found = np.array([value(row) for row in rows], dtype=float)
    return np.log10(np.where(found > 0, found, np.nan))


def drops(rows: Sequence[Row]) -> list[int]:
    """The epochs, counted from 0, in which the learning rate is lower than before."""
    return [int(i) + 1 for i in np.flatnonzero(np.diff([row["lr"] for row in rows]))]


def below(results: Results, value: Value, low: str, high: str) -> list[float]:
    """Return how far one kind is below another: log10 of geometric means, by seed."""
    ours, theirs = of(results, low), of(results, high)
    found = [logs(theirs[s], value) - logs(ours[s], value) for s in sorted(set(ours) & set(theirs))]
    return [float(np.nanmean(apart)) for apart in found if np.isfinite(apart).any()]


def swing(rows: Sequence[Row], value: Value) -> float:
    """Size of the change from an epoch to the next, log10, mean over those before the first drop.

    NaN where there are less than two of them.
    """
    steps = np.abs(np.diff(logs(rows[: min(drops(rows), default=len(rows))], value)))
    return float(np.nanmean(steps)) if np.isfinite(steps).any() else float("nan")


def plot(ax: Axes, results: Results, value: Value, kind: str) -> None:
    """Every seed as a thin line, their geometric mean as a thick one, drops of the rate dotted."""
    histories = list(of(results, kind).values())
    if not histories:
        return
    found = np.stack([logs(rows, value) for rows in histories])
    epochs = np.arange(1, found.shape[1] + 1)
    if len(found) > 1:
        ax.plot(epochs, 10**found.T, color=COLOURS[kind], lw=0.5, alpha=0.5)
    ax.plot(epochs, 10 ** found.mean(axis=0), color=COLOURS[kind], label=NAMES[kind])
    for epoch in drops(histories[0]):
        ax.axvline(epoch + 0.5, color="#999999", lw=0.8, ls=":", zorder=0)
    ax.set_yscale("log")
    ax.locator_params(axis="x", integer=True)


def compared(results: Results, panels: Mapping[str, Value]) -> Figure:
    """A panel a record, one above the other, with and without ToST."""
    fig = style.new_figure(style.COLUMN, 1.65 * len(panels) + 0.3)
    column = fig.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (label, value) in zip(column, panels.items(), strict=True):
        for kind in COLOURS:
            plot(ax, results, value, kind)
        ax.set_ylabel(label)
    column[-1].set_xlabel("epoch")
    fig.legend(*column[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig
