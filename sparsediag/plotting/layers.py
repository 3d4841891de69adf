"""Pictures with one row for each layer, the first on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from sparsediag.plotting import style

ROW, LEAST, MOST = 0.16, 1.3, 8.0  # inches: a row, and all of them
LONG = 22  # letters of a name that leave room for the picture


def rows_height(names: Sequence[str]) -> float:
    """Inches that the rows need, on one page."""
    return min(MOST, max(LEAST, ROW * len(names)))


def new_axes(names: Sequence[str]) -> Axes:
    """The axes of a new one-column figure, as high as the net is deep."""
    with style.style():
        return style.new_figure(height=0.9 + rows_height(names)).add_subplot()


def draw(
    names: Sequence[str], series: Mapping[str, tuple[np.ndarray, str]], ax: Axes | None = None
) -> Axes:
    """Draw values of each layer, a row a layer, and return the axes.

    Args:
        names: The layers.
        series: Label -> values, (layers,), and their format ("o-"); a series of NaN is left out.
        ax: Where to draw; a new figure if None.
    """
    ax = ax or new_axes(names)
    for (head, (values, form)), colour in zip(series.items(), cycle(style.COLOURS), strict=False):
        if np.isfinite(values).any():
            ax.plot(values, np.arange(len(names)), form, ms=3, color=colour, label=head)
    label_rows(ax, names)
    return ax


def label_rows(ax: Axes, names: Sequence[str]) -> None:
    """Name the rows 0, 1, ... of `ax`, as many of them as there is room for, and turn it over."""
    tall = ax.get_window_extent().height / ax.figure.dpi
    shown = np.arange(0, len(names), 1 + int(0.7 * ROW * len(names) / tall))
    told = [style.escape_dollars(name) for name in shorten(names)]
    ax.set_yticks(shown, np.array(told)[shown])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")


def add_legend(ax: Axes, columns: int = 2) -> None:
    """A legend above `ax` that reaches over the names, so that it takes no width."""
    ax.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=columns, columnspacing=1, handlelength=1.2
    )


def set_log_scale(ax: Axes, which: Literal["x", "y"]) -> None:
    """A logarithmic axis with as many numbers as have room, where all values are positive."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = axis.get_data_interval()
    if low > 0:
        ax.set(**{f"{which}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def shorten(names: Sequence[str]) -> list[str]:
    """The names; if they are long, without what all have in common, and with fewer letters a part.

    >>> shorten(["fc1.weight", "fc2.weight"])
    ['fc1', 'fc2']
    >>> shorten(["vit.encoder.layer.0.attention.query", "vit.encoder.layer.1.attention.query"])
    ['0.attention.query', '1.attention.query']
    >>> shorten(["encoder.layer.0.attention.dense", "pooler.dense"])
    ['enco.laye.0.atte.dense', 'pool.dense']
    """
    told = [name.removesuffix(".weight") for name in names]
    if max(map(len, told)) <= LONG:
        return told
    parts = [name.split(".") for name in told]
    levels = enumerate(zip(*parts, strict=False))
    common = next((i for i, level in levels if len(set(level)) > 1), 0)
    for letters in (LONG, 8, 6, 4, 2):
        before = [[word[:letters] for word in words[common:-1]] for words in parts]
        cut = [".".join([*some, words[-1]]) for some, words in zip(before, parts, strict=True)]
        if max(map(len, cut)) <= LONG:
            break
    cut = [n if len(n) <= LONG else f"{n[: LONG // 2]}…{n[1 - LONG // 2 :]}" for n in cut]
    return cut if len(set(cut)) == len(set(told)) else told


def heatmap(
    ax: Axes, names: Sequence[str], columns: Sequence[str], values: np.ndarray, *, of: str
) -> None:
    """Colours of `values[column, row]`, in the logarithm where they span much; grey is nan."""
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    norm = (LogNorm if 0 < 20 * low < high else Normalize)(low, high)
    edges = np.arange(len(columns) + 1) - 0.5, np.arange(len(names) + 1) - 0.5
    drawn = ax.pcolormesh(*edges, values.T, norm=norm, cmap="cividis")
    ax.set_facecolor("#dddddd")
    ax.grid(visible=False)
    ax.figure.colorbar(drawn, ax=ax, label=of, pad=0.02, aspect=30)
    label_rows(ax, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    shown = np.arange(0, len(columns), 1 + len(columns) // 8)
    ax.set_xticks(shown, np.array(columns)[shown])
