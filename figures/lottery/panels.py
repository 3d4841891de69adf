"""Panels of accuracy over sparsity in the style of the earlier paper, and winning tickets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures import accuracy, accuracy_plots
from figures.lottery.runs import REWOUND
from figures.measurement import Results
from sparsediag.plotting import style
from sparsediag.plotting.accuracy import LineStyle
from sparsediag.plotting.style import COLOUR_OF, COLOURS

LINE_STYLES = {
    "vanilla": LineStyle(COLOUR_OF["sparse"], "o"),
    "skip": LineStyle(COLOUR_OF["GSk"], "s"),
    "Swish": LineStyle(COLOUR_OF["Swish"], "s"),
    "Mish": LineStyle(COLOURS[4], "^"),
    "LS": LineStyle(COLOUR_OF["LS"], "s"),
    "LRsI": LineStyle(COLOUR_OF["LRsI"], "s"),
    "AT": LineStyle(COLOURS[0], "s"),
    "TRT": LineStyle(COLOURS[2], "^"),
    "AT+TRT": LineStyle(COLOUR_OF["ToST"], "D"),
    "AT+TRT with KD": LineStyle(COLOURS[0], "v"),
}
LINE_STYLES |= {
    kind + REWOUND: line_style._replace(line=":") for kind, line_style in LINE_STYLES.items()
}


def panel(
    ax: Axes,
    results: Results,
    kinds: Iterable[Any],
    *,
    title: str = "",
    dense: Iterable[Any] = (),
    inches: float = 3.0,
) -> None:
    """Draw a panel with a curve for each kind.

    Args:
        ax: Axes to draw on.
        results: By (kind, density, seed).
        kinds: Names of `LINE_STYLES`, or tuples that end with one.
        title: Title of the panel.
        dense: Kinds whose dense networks are drawn as dashed lines.
        inches: Width of the axes; narrow ones get fewer tick labels.
    """
    curves = {kind: (_name(kind), LINE_STYLES[_name(kind)]) for kind in kinds}
    accuracy_plots.plot(ax, results, curves, inches=inches)
    for kind in dense:
        accuracy_plots.plot_dense(ax, results, kind, LINE_STYLES[_name(kind)].colour)
    ax.set_title(title)


def _name(kind: Any) -> str:
    return kind if isinstance(kind, str) else kind[-1]


def single_panel(results: Results, kinds: Iterable[str], *, title: str = "") -> Figure:
    """Return a figure of one panel with the plain dense network as a dashed line."""
    fig = style.new_figure(style.COLUMN, 2.6)
    panel(fig.add_subplot(), results, kinds, title=title, dense=("vanilla",))
    legend(fig)
    return fig


def legend(fig: Figure, *, winning: bool = False) -> None:
    """Add a legend above all panels, in as many rows as its width needs."""
    entries: dict[str, Any] = {}
    for ax in fig.axes:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    entries["dense"] = Line2D([], [], color=COLOUR_OF["dense"], linewidth=0.8, linestyle="--")
    if winning:
        entries["winning tickets"] = Patch(color=COLOUR_OF["dense"], alpha=0.25, linewidth=0)
    inches = sum(0.5 + 0.055 * len(name) for name in entries)
    rows = math.ceil(inches / fig.get_figwidth())
    columns = math.ceil(len(entries) / rows)
    fig.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=columns)


def winning_accuracy(results: Results) -> float:
    """Return the accuracy of a winning ticket: the dense mean minus one deviation, or NaN."""
    dense = list(accuracy.by_seed(results, "vanilla", 1).values())
    if not dense:
        return math.nan
    return float(np.mean(dense) - (np.std(dense, ddof=1) if len(dense) > 1 else 0))


def shade_winning(ax: Axes, results: Results, kind: str) -> None:
    """Shade the sparsities at which a kind wins, half a round to either side."""
    half_round = 0.8**0.5
    for density in sorted({d for k, d, _ in results if k == kind and d < 1}):
        mean = accuracy.estimate(results, kind, density)
        if mean and mean.mean >= winning_accuracy(results):
            span = (density * half_round, density / half_round)
            ax.axvspan(*span, color=LINE_STYLES[kind].colour, alpha=0.13, linewidth=0)
