"""Curves over the steps of one or several trainings, with a panel for each kind of number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sparsediag.plotting import layers, style

PARTS = 100  # points of a long curve: each is the median of as many rows
FEW = 40  # points that have a marker each, or of a curve that did not converge
LINES = ("-", "--", ":", "-.")
PANEL, WIDTH = 1.5, 2.7  # inches: height of a panel, and width of its axes
LETTERS = 18  # of a label in a line beside a panel
MOST = 6  # names in the legend of a panel


class Curve(NamedTuple):
    """A number over the steps of a training.

    Attributes:
        name: What it is.
        training: Which training it is of.
        steps: Where it was measured, (n,).
        values: Numbers, (n,); nan where they were not finite.
        converged: False where a number did not converge, (n,).
    """

    name: str
    training: str
    steps: np.ndarray
    values: np.ndarray
    converged: np.ndarray


def split_rows(values: np.ndarray, parts: int) -> list[np.ndarray]:
    """Return consecutive parts of the rows, `parts` of them or one a row.

    >>> [part.tolist() for part in split_rows(np.arange(5), 2)]
    [[0, 1, 2], [3, 4]]
    """
    return np.array_split(values, min(parts, len(values))) if len(values) else []


def median(values: np.ndarray) -> float:
    """Return the median of the finite values; nan if there is none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def plot_panels(
    panels: Mapping[str, Sequence[Curve]], *, xlabel: str, marks: Sequence[float] = ()
) -> list[Axes]:
    """Draw each group of curves in a panel of a new figure; return the panels.

    Args:
        panels: Label of the y axis -> its curves.
        xlabel: Label of the x axis.
        marks: Places of vertical lines.
    """
    trainings = list(dict.fromkeys(c.training for curves in panels.values() for c in curves))
    columns = 1 if len(panels) < 4 else 2
    rows = -(-len(panels) // columns)
    with style.style():
        key = _key([curve for curves in panels.values() for curve in curves], trainings)
        lines = -(-len(key) // (2 * columns))
        heights = [0.05 + 0.15 * lines, *[PANEL] * rows]
        width = style.COLUMN if columns == 1 else style.PAGE
        fig = style.new_figure(width, 0.35 + sum(heights))
        top, *grid = fig.subplots(
            rows + 1, columns, sharex=True, squeeze=False, height_ratios=heights
        )
        axes: list[Axes] = [ax for row in grid for ax in row]
        for ax in (*top[1:], *axes[len(panels) :]):
            ax.remove()
        top[0].axis("off")
        legend = top[0].legend(
            handles=key, loc="upper left", ncols=2 * columns, bbox_to_anchor=(-0.1, 1), borderpad=0
        )
        legend.set_in_layout(False)
        for i, (label, curves) in enumerate(panels.items()):
            plot_panel(axes[i], label, curves, trainings=trainings, marks=marks)
            if i + columns >= len(panels):
                axes[i].set_xlabel(xlabel)
                axes[i].tick_params(labelbottom=True)
    return axes[: len(panels)]


@style.style()
def plot_panel(
    ax: Axes,
    label: str,
    curves: Sequence[Curve],
    *,
    trainings: Sequence[str],
    marks: Sequence[float] = (),
) -> None:
    """Draw curves: a colour for each training and a kind of line for each name.

    With a single training each name has a colour; many names, such as modules, have the colours of
    a scale in their order.

    Args:
        ax: Where to draw.
        label: Label of the y axis.
        curves: What to draw.
        trainings: All trainings, for their colours.
        marks: Places of vertical lines.
    """
    names, several = list(dict.fromkeys(c.name for c in curves)), len(trainings) > 1
    colours = _colours(trainings if several else names)
    lines = dict.fromkeys(names, "-")
    if several and len(names) <= len(LINES):
        lines = dict(zip(names, LINES, strict=False))
    for mark in marks:
        ax.axvline(mark, color="#bbbbbb", lw=0.5, zorder=0.5)
    for curve in curves:
        below = len(trainings) - 1 - trainings.index(curve.training)  # coinciding curves all show
        width = 1 + 0.5 * min(below, 2) if len(names) <= MOST else 0.7
        colour = colours[curve.training if several else curve.name]
        _plot_curve(ax, curve, color=colour, ls=lines[curve.name], lw=width)
    layers.set_log_scale(ax, "y")
    ax.set_ylabel(fill(label, LETTERS))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    if len(names) > 1 and not (several and len(names) > len(LINES)):
        shown = names if len(names) <= MOST else [names[0], names[len(names) // 2], names[-1]]
        handles = [
            Line2D([], [], color="black" if several else colours[name], ls=lines[name])
            for name in shown
        ]
        _add_names(ax, handles, [style.escape_dollars(name) for name in layers.shorten(shown)])


def _add_names(ax: Axes, handles: Sequence[Line2D], names: Sequence[str]) -> None:
    """Add a legend above a panel, not wider than it."""
    columns = len(names)
    while columns > 1:
        widths = [
            max(0.38 + layers.LETTER * len(n) for n in names[i::columns]) for i in range(columns)
        ]
        if sum(widths) < WIDTH:
            break
        columns -= 1
    order = [i for column in range(columns) for i in range(column, len(names), columns)]
    ax.legend(
        [handles[i] for i in order],
        [names[i] for i in order],
        loc="lower right",
        bbox_to_anchor=(1, 0.98),
        ncols=columns,
        columnspacing=1,
        handlelength=1.6,
        borderpad=0.1,
    )


def _key(curves: Sequence[Curve], trainings: Sequence[str]) -> list[Line2D]:
    """Return what explains the colours of several trainings, and the marks."""
    colours = _colours(trainings) if len(trainings) > 1 else {}
    key = [Line2D([], [], color=c, label=style.escape_dollars(n)) for n, c in colours.items()]
    rows = max((-(-len(c.steps) // PARTS) for c in curves if len(c.steps) > 2 * PARTS), default=0)
    if rows:
        key.append(Line2D([], [], color="#777777", label=f"median of {rows} rows (pale: range)"))
    if any((~c.converged & np.isfinite(c.values)).any() for c in curves):
        key.append(Line2D([], [], ls="", color="#777777", label="not converged", **_HOLLOW))
    if any((~np.isfinite(c.values)).any() for c in curves):
        key.append(Line2D([], [], ls="", color="#777777", label="not finite", **_CROSS))
    return key


_HOLLOW: dict[str, Any] = {"marker": "o", "mfc": "white", "ms": 3, "mew": 0.7}
_CROSS: dict[str, Any] = {"marker": "x", "ms": 3, "mew": 0.7}


def _plot_curve(ax: Axes, curve: Curve, *, color: Any, ls: str, lw: float) -> None:
    """Draw a curve; a long one as medians and ranges of its parts."""
    _, _, steps, values, converged = curve
    x, y, finite = steps, np.where(converged, values, np.nan), np.isfinite(values)
    if len(x) > 2 * PARTS:
        parts = [part[np.isfinite(part)] for part in split_rows(y, PARTS)]
        low = np.array([part.min(initial=np.inf) for part in parts])
        high = np.array([part.max(initial=-np.inf) for part in parts])
        x = np.array([part.mean() for part in split_rows(x, PARTS)])
        y = np.array([median(part) for part in parts])
        ax.fill_between(x, low, high, where=low <= high, color=color, alpha=0.2, lw=0)
    known = np.isfinite(np.pad(y, 1, constant_values=np.nan))
    alone = known[1:-1] & ~(known[:-2] | known[2:])  # points that no line reaches
    points = alone if len(x) > FEW else np.ones_like(alone)
    ax.plot(x, y, ls, color=color, lw=lw, marker=".", ms=3, markevery=points.tolist())
    doubtful = ~converged & finite
    _mark(ax, steps[doubtful], values[doubtful], color=color, **_HOLLOW)
    lost = steps[~finite]
    at_bottom = ax.get_xaxis_transform()
    _mark(ax, lost, 0 * lost, color=color, transform=at_bottom, clip_on=False, **_CROSS)


def _mark(ax: Axes, x: np.ndarray, y: np.ndarray, **look: Any) -> None:
    """Draw markers, of many only some."""
    if len(x):
        ax.plot(x, y, ls="", markevery=-(-len(x) // FEW), **look)


def _colours(names: Sequence[str]) -> dict[str, Any]:
    """Return a colour for each name: of the palette, or of a scale if there are more."""
    if len(names) <= len(style.COLOURS):
        return dict(zip(names, style.COLOURS, strict=False))
    return dict(zip(names, colormaps["cividis"](np.linspace(0, 0.95, len(names))), strict=True))
