"""Ladders: accuracy over sparsity as the forerunner's figures show it, and margins of claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures import accuracy
from sparsediag.plotting.style import COLOUR_OF, COLOURS

Results = Mapping[Any, Any]

# colour, marker; a kind that starts rewound looks like the kind itself, dotted and hollow
LOOKS = {
    "vanilla": (COLOUR_OF["sparse"], "o"),
    "skip": (COLOUR_OF["GSk"], "s"),
    "Swish": (COLOUR_OF["Swish"], "s"),
    "Mish": (COLOURS[4], "^"),
    "LS": (COLOUR_OF["LS"], "s"),
    "LRsI": (COLOUR_OF["LRsI"], "s"),
    "AT": (COLOURS[0], "s"),
    "TRT": (COLOURS[2], "^"),
    "AT+TRT": (COLOUR_OF["ToST"], "D"),
    "AT+TRT with KD": (COLOURS[0], "v"),
}
REWOUND = ", rewound"


def panel(
    ax: Axes,
    results: Results,
    kinds: Mapping[Any, str],
    *,
    title: str = "",
    dense: Sequence[Any] = (),
    inches: float = 3.0,
) -> None:
    """Draw a panel of curves that differ in colour, marker and line.

    Args:
        ax: Where to draw.
        results: By (kind, density, seed).
        kinds: Kind -> name in the legend, which is one of `LOOKS`, rewound or not.
        title: Title.
        dense: Kinds whose dense nets are drawn.
        inches: Width of the axis; where it is narrow, fewer sparsities are written.
    """
    looks = {name: LOOKS[name.removesuffix(REWOUND)] for name in kinds.values()}
    named = {kind: (name, looks[name][0]) for kind, name in kinds.items()}
    accuracy.ladder(ax, results, named, dense=dense, inches=inches)
    for kind in set(dense) - set(kinds):
        if level := accuracy.estimate(results, kind, 1):
            ax.axhline(level.mean, color=LOOKS[kind][0], linewidth=0.8, linestyle="--")
    for bars in ax.containers:
        line, name = bars[0], str(bars.get_label())
        line.set_marker(looks[name][1])
        if name.endswith(REWOUND):
            line.set(linestyle=":", markerfacecolor="white", markeredgewidth=0.7)
    ax.set_title(title)


def legend(fig: Figure, *, winning: bool = False) -> None:
    """Return what the curves of all panels are, above them."""
    found: dict[str, Any] = {}
    for ax in fig.axes:
        handles, names = ax.get_legend_handles_labels()
        found |= {n: h for h, n in zip(handles, names, strict=True) if n not in found}
    found["dense"] = Line2D([], [], color=COLOUR_OF["dense"], linewidth=0.8, linestyle="--")
    if winning:
        found["winning tickets"] = Patch(color=COLOUR_OF["dense"], alpha=0.25, linewidth=0)
    inches = sum(0.5 + 0.055 * len(name) for name in found)
    rows = math.ceil(inches / fig.get_figwidth())
    columns = math.ceil(len(found) / rows)
    fig.legend(found.values(), found.keys(), loc="outside upper center", ncols=columns)


def bar(results: Results) -> float:
    """Return the accuracy of a winning ticket: the dense mean less one deviation, or nan."""
    dense = list(accuracy.seeds(results, "vanilla", 1).values())
    if not dense:
        return math.nan
    return float(np.mean(dense) - (np.std(dense, ddof=1) if len(dense) > 1 else 0))


def shade(ax: Axes, results: Results, kind: str) -> None:
    """Mark the sparsities at which a kind wins, half a round to either side."""
    for share in sorted({d for k, d, _ in results if k == kind and d < 1}):
        found = accuracy.estimate(results, kind, share)
        if found and found.mean >= bar(results):
            half = 0.8**0.5
            ax.axvspan(share * half, share / half, color=LOOKS[kind][0], alpha=0.13, linewidth=0)
