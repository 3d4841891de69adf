"""Records over the epochs of a training, with and without ToST: shared by Figures 2 and 9."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.effect_sizes import Margin
from figures.histories import History, Value, before_first_drop, log10, mark_drops
from figures.measurement import Results, by_seed, history_grid
from figures.tost.runs import run
from sparsediag.plotting import layers, style

DENSITY = 0.1
MEASUREMENTS = history_grid(run, ("base", "ToST"), (DENSITY,))
COLOURS = {"base": style.COLOUR_OF["sparse"], "ToST": style.COLOUR_OF["ToST"]}
NAMES = {"base": "plain sparse", "ToST": "ToST"}


def log_ratio(value: Value, numerator: str, denominator: str) -> Margin:
    """Return log10 of the ratio of a value between two kinds, its mean over the epochs."""

    def margin(results: Results) -> dict[int, float]:
        above, below = (by_seed(results, kind, DENSITY) for kind in (numerator, denominator))
        ratios = {
            seed: log10(above[seed], value) - log10(below[seed], value)
            for seed in sorted(above.keys() & below.keys())
        }
        return {s: float(np.nanmean(r)) for s, r in ratios.items() if np.isfinite(r).any()}

    return margin


def mean_step(history: History, value: Value) -> float:
    """Return the mean |change of log10| from epoch to epoch before the first drop of the rate.

    It is NaN if there are fewer than two such epochs.
    """
    steps = np.abs(np.diff(log10(before_first_drop(history), value)))
    return float(np.nanmean(steps)) if np.isfinite(steps).any() else float("nan")


def plot(ax: Axes, results: Results, value: Value, kind: str) -> None:
    """Plot each seed as a thin line, their geometric mean as a thick one, and mark the drops."""
    trained = list(by_seed(results, kind, DENSITY).values())
    if not trained:
        return
    logs = np.stack([log10(history, value) for history in trained])
    epochs = np.arange(1, logs.shape[1] + 1)
    if len(logs) > 1:
        ax.plot(epochs, 10**logs.T, color=COLOURS[kind], lw=0.5, alpha=0.5)
    ax.plot(epochs, 10 ** logs.mean(axis=0), color=COLOURS[kind], label=NAMES[kind])
    mark_drops(ax, trained[0])
    layers.set_log_scale(ax, "y")
    ax.locator_params(axis="x", integer=True)


def compare(results: Results, panels: Mapping[str, Value]) -> Figure:
    """Draw a panel for each value, one above the other, with and without ToST."""
    fig = style.new_figure(style.COLUMN, 1.65 * len(panels) + 0.3)
    column = fig.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (label, value) in zip(column, panels.items(), strict=True):
        for kind in COLOURS:
            plot(ax, results, value, kind)
        ax.set_ylabel(label)
    column[-1].set_xlabel("epoch")
    fig.legend(*column[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig
