"""Style of every picture: legible at the width of a column, and for colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sparsediag.core.atomic import atomic_write

FOOTER = 5.5  # points, of the line that says what was measured
COLUMN, PAGE = 3.4, 7.0  # inches: one column and the whole width of a two-column paper

# Okabe and Ito's palette, without its yellow
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")

# a colour for what is compared throughout the papers
COLOUR_OF = {
    "dense": "#777777",
    "sparse": COLOURS[6],
    "GSk": COLOURS[0],
    "GSw": COLOURS[1],
    "LS": COLOURS[2],
    "LRsI": COLOURS[3],
    "ToST": COLOURS[5],
    "ReLU": COLOURS[6],
    "Swish": COLOURS[1],
    "Mish": COLOURS[0],
}

STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}


@contextmanager
def style() -> Iterator[None]:
    """Use the house style inside the block; restore the caller's settings after it."""
    with mpl.rc_context({**mpl.rcParamsDefault, **STYLE}):  # type: ignore[dict-item]
        yield


def new_figure(width: float = COLUMN, height: float = 2.4, **layout: Any) -> Figure:
    """Return a new figure in the house style, in inches, without a window."""
    with style():
        return Figure(figsize=(width, height), layout="constrained", **layout)


def new_axes() -> Axes:
    """Return the axes of a new one-column figure."""
    with style():
        return new_figure().add_subplot()


def new_plane_axes() -> Axes:
    """Return the axes of a new one-column figure of a plane: a square and its colour bar."""
    with style():
        fig = new_figure(height=2.8)
        fig.set_layout_engine("compressed")
        return fig.add_subplot()


def escape_dollars(name: str) -> str:
    """Return a name of a file or layer as text for a picture, where dollars would be formulas.

    >>> print(escape_dollars("$x$.pt"))
    \\$x\\$.pt
    """
    return name.replace("$", r"\$")


def add_footer(fig: Figure, text: str) -> None:
    """Add a small line of text below a figure, broken where the figure ends."""
    letters = int(fig.get_figwidth() * 72 / (0.57 * FOOTER))
    lines = "\n".join(wrap(escape_dollars(text), letters))
    fig.supxlabel(lines, x=0.01, ha="left", fontsize=FOOTER, color="#666666")


def add_title(fig: Figure, title: str) -> None:
    """Add a title above a figure, in as many lines as it needs; the figure grows by its height."""
    lines = wrap(escape_dollars(title), int(16 * fig.get_figwidth()))
    if lines:
        fig.set_figheight(fig.get_figheight() + 0.06 + 0.12 * len(lines))
        size = STYLE["axes.titlesize"]
        fig.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=size)


def save(fig: Figure, stem: Path, *, formats: tuple[str, ...] = ("png",), **about: str) -> None:
    """Write `stem.png` and so on, each whole or not at all; `about` goes into the PNG's text."""
    for form in formats:
        with style(), atomic_write(stem.with_name(f"{stem.name}.{form}")) as draft:
            metadata = {"png": about, "pdf": {"CreationDate": None}}.get(form)
            fig.savefig(draft, format=form, metadata=metadata)
            fig.set_layout_engine("none")  # the other formats take the same layout


def plot_contours(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    *,
    levels: np.ndarray | None = None,
    colorbar: bool = True,
) -> ContourSet:
    """Draw filled contours of `z[i, j]` at `x[i]`, `y[j]`; logarithmic if all levels are positive.

    Levels given from outside make panels comparable; what lies outside them takes the end colours.
    """
    from matplotlib.colors import LogNorm, Normalize

    if levels is None:
        levels = loss_levels(z)
    z = np.maximum(z, levels[0])  # a logarithm of 0 has no colour
    norm = (LogNorm if levels[0] > 0 else Normalize)(levels[0], levels[-1])
    filled = ax.contourf(x, y, z.T, levels=levels, norm=norm, cmap="cividis", extend="both")
    ax.contour(x, y, z.T, levels=levels, colors="white", linewidths=0.3)
    ax.set_aspect("equal")
    if colorbar:
        add_loss_scale(filled, ax, levels, shrink=0.85)
    return filled


def add_loss_scale(filled: ContourSet, axes: Any, levels: np.ndarray, **options: Any) -> None:
    """Add the colour bar of contours of the loss, beside one or several axes."""
    figure = np.ravel(axes)[0].figure
    ticks = round_ticks(levels)
    scale = figure.colorbar(filled, ax=axes, label="loss", ticks=ticks, **options)
    scale.ax.set_yticklabels(format_distinct(ticks))
    scale.ax.minorticks_off()


def loss_levels(*losses: np.ndarray, count: int = 17) -> np.ndarray:
    """Return contour levels for all losses, evenly spaced in the logarithm if none is negative."""
    finite = np.concatenate([z[np.isfinite(z)] for z in losses])
    if finite.min(initial=0) < 0:
        return np.linspace(finite.min(), finite.max() + 1e-9 * np.ptp(finite) + 1e-12, count)
    low = max(float(finite.min(initial=np.inf)), 1e-6) if len(finite) else 1.0
    return np.geomspace(low, max(float(finite.max(initial=low)), 1.01 * low), count)


def spans_decade(levels: np.ndarray) -> bool:
    """Return whether the levels are positive and span a decade or more."""
    return bool(0 < 10 * levels[0] <= levels[-1])


def round_ticks(levels: np.ndarray, most: int = 6) -> np.ndarray:
    """Return up to `most` round numbers in the range of the levels: 1, 10, ... for decades.

    >>> round_ticks(np.array([0.02, 5, 531])).tolist()
    [0.1, 1.0, 10.0, 100.0]
    """
    low, high = levels[0], levels[-1]
    candidates = [np.array(MaxNLocator(min(5, most)).tick_values(low, high))]
    if spans_decade(levels):
        tens = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high) + 1)
        candidates = [np.outer(tens, (1, 2, 5)).ravel(), tens]
    inside = [ticks[(low <= ticks) & (ticks <= high)] for ticks in candidates]
    fitting: np.ndarray = next((ticks for ticks in inside if len(ticks) <= most), inside[-1])
    return fitting[:: 1 + (len(fitting) - 1) // most]


def format_distinct(values: np.ndarray) -> list[str]:
    """Return numbers as text with the fewest digits that keep them distinct."""
    for digits in range(1, 9):
        decimals = max(0, digits - 2)
        texts = [f"{v:.{digits}g}" if abs(v) < 10 else f"{v:.{decimals}f}" for v in values]
        if len(set(texts)) == len(texts):
            break
    return texts
