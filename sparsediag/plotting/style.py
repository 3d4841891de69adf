"""Style of every picture: legible at the width of a column, and for colour-blind readers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from sparsediag.core.atomic import atomic_write

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

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


def escape_dollars(name: str) -> str:
    """Return a name of a file or layer as text for a picture, where dollars would be formulas.

    >>> print(escape_dollars("$x$.pt"))
    \\$x\\$.pt
    """
    return name.replace("$", r"\$")


def add_footer(fig: Figure, text: str) -> None:
    """Add a small line of text below a figure, broken where the figure ends."""
    letters = int(fig.get_figwidth() * 72 / (0.5 * FOOTER))
    lines = "\n".join(textwrap.wrap(escape_dollars(text), letters))
    fig.supxlabel(lines, x=0.01, ha="left", fontsize=FOOTER, color="#666666")


def save(fig: Figure, stem: Path, *, formats: tuple[str, ...] = ("png",), **about: str) -> None:
    """Write `stem.png` and so on, each whole or not at all; `about` goes into the PNG's text."""
    for form in formats:
        with style(), atomic_write(stem.with_name(f"{stem.name}.{form}")) as draft:
            metadata = {"png": about, "pdf": {"CreationDate": None}}.get(form)
            fig.savefig(draft, format=form, metadata=metadata)


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
    scale = figure.colorbar(filled, ax=axes, label="loss", ticks=levels[::4], **options)
    scale.ax.set_yticklabels(_format_distinct(levels[::4]))
    scale.ax.minorticks_off()


def loss_levels(*losses: np.ndarray, count: int = 17) -> np.ndarray:
    """Return contour levels for all losses, evenly spaced in the logarithm if none is negative."""
    finite = np.concatenate([z[np.isfinite(z)] for z in losses])
    if finite.min(initial=0) < 0:
        return np.linspace(finite.min(), finite.max() + 1e-9 * np.ptp(finite) + 1e-12, count)
    low = max(float(finite.min(initial=np.inf)), 1e-6) if len(finite) else 1.0
    return np.geomspace(low, max(float(finite.max(initial=low)), 1.01 * low), count)


def _format_distinct(values: np.ndarray) -> list[str]:
    """Return numbers as text with the fewest digits that keep them distinct."""
    for digits in range(2, 9):
        texts = [f"{v:.{digits}g}" if abs(v) < 10 else f"{v:.{digits - 2}f}" for v in values]
        if len(set(texts)) == len(texts):
            break
    return texts


def plot_surface_3d(axes: np.ndarray, z: np.ndarray, labels: Sequence[str]) -> PlotlyFigure:
    """Draw `z[i, j]` at `axes[0, i]`, `axes[1, j]` interactively; lines if there is one axis."""
    from plotly import graph_objects as go

    if len(axes) == 1:
        fig = go.Figure([go.Scatter(x=axes[0], y=line) for line in np.atleast_2d(z)])
        return fig.update_layout(xaxis_title=labels[0], yaxis_title="loss")
    fig = go.Figure(go.Surface(x=axes[0], y=axes[1], z=z.T, colorscale="Cividis"))
    titles = {"xaxis_title": labels[0], "yaxis_title": labels[1], "zaxis_title": "loss"}
    return fig.update_layout(scene=titles, margin={"l": 0, "r": 0, "t": 30, "b": 0})


def write_html(fig: PlotlyFigure, path: Path) -> None:
    """Write one self-contained page that needs no network."""
    with atomic_write(path) as draft:
        fig.write_html(draft, include_plotlyjs=True)
