"""Pictures with one row for each layer, the first on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import NullFormatter

from sparsediag.plotting import style

ROW, LEAST, MOST = 0.16, 1.3, 8.0  # inches: a row, and all of them
LETTER = 0.056  # inches: a letter of a legend, and of a number at an axis
LONG = 22  # letters of a name that leave room for the picture


def rows_height(names: Sequence[str]) -> float:
    """Return the height of the rows in inches, on one page."""
    return min(MOST, max(LEAST, ROW * len(names)))


def new_layer_axes(names: Sequence[str]) -> Axes:
    """Return the axes of a new one-column figure, as high as the net is deep."""
    return new_layer_panels(names, 1)[0]


def new_layer_panels(names: Sequence[str], count: int) -> list[Axes]:
    """Return axes side by side in a new one-column figure, which share their rows."""
    with style.style():
        fig = style.new_figure(height=0.9 + rows_height(names))
        return list(fig.subplots(1, count, sharey=True, squeeze=False)[0])


def plot_layers(
    names: Sequence[str], series: Mapping[str, tuple[np.ndarray, str]], ax: Axes | None = None
) -> Axes:
    """Draw values of each layer, a row a layer, and return the axes.

    Args:
        names: The layers.
        series: Label -> values, (layers,), and their format ("o-"); a series of NaN is left out.
        ax: Where to draw; a new figure if None.
    """
    ax = ax or new_layer_axes(names)
    rows = np.arange(len(names))
    for i, (label, (values, fmt)) in enumerate(series.items()):
        if np.isfinite(values).any():
            colour = style.COLOURS[i % len(style.COLOURS)]
            (line,) = ax.plot(values, rows, fmt, ms=3, color=colour, label=label)
            below = min(3, len(series) - 1 - i)  # so that coinciding curves all show
            if line.get_linestyle() != "None":
                line.set(linewidth=1 + 0.8 * below, markersize=3 + below)
    label_rows(ax, names)
    return ax


def label_rows(ax: Axes, names: Sequence[str]) -> None:
    """Name the rows 0, 1, ... of `ax`, as many as there is space for, and invert the y axis."""
    height = ax.get_window_extent().height / ax.figure.dpi
    tick_indices = np.arange(0, len(names), 1 + int(0.7 * ROW * len(names) / height))
    labels = [style.escape_dollars(name) for name in shorten(names)]
    ax.set_yticks(tick_indices, np.array(labels)[tick_indices])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")


def add_legend(ax: Axes, columns: int = 2) -> None:
    """Add a legend above `ax` that reaches over the names, so that it takes no width."""
    lengths = [len(label) for label in ax.get_legend_handles_labels()[1]]
    room = ax.figure.get_figure(root=True).get_figwidth() / LETTER
    while columns > 1:
        widths = [5 + max(part, default=0) for part in np.array_split(lengths, columns)]
        if sum(widths) <= room:
            break
        columns -= 1
    ax.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=columns, columnspacing=1, handlelength=1.2
    )


def set_log_scale(ax: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic if its values span a decade, with as many numbers as fit."""
    axis, box = (ax.xaxis if which == "x" else ax.yaxis), ax.get_window_extent()
    levels = np.array(axis.get_data_interval())
    if style.spans_decade(levels):
        ax.set(**{f"{which}scale": "log"})
        length = box.width if which == "x" else 2 * box.height
        longest = max(map(len, style.format_distinct(style.round_ticks(levels))))
        ticks = style.round_ticks(levels, int(length / ax.figure.dpi / LETTER / (2 + longest)))
        axis.set_ticks(ticks, style.format_distinct(ticks))
        axis.set_minor_formatter(NullFormatter())


def shorten(names: Sequence[str]) -> list[str]:
    """Return the names; long ones lose their common start and have fewer letters in each part.

    >>> shorten(["fc1.weight", "fc2.weight"])
    ['fc1', 'fc2']
    >>> shorten(["vit.encoder.layer.0.attention.query", "vit.encoder.layer.1.attention.query"])
    ['0.attention.query', '1.attention.query']
    >>> shorten(["encoder.layer.0.attention.dense", "pooler.dense"])
    ['enco.laye.0.atte.dense', 'pool.dense']
    """
    full = [name.removesuffix(".weight") for name in names]
    if max(map(len, full)) <= LONG:
        return full
    parts = [name.split(".") for name in full]
    levels = enumerate(zip(*parts, strict=False))
    common = next((i for i, level in levels if len(set(level)) > 1), 0)
    for letters in (LONG, 8, 6, 4, 2):
        prefixes = [[word[:letters] for word in words[common:-1]] for words in parts]
        short = [
            ".".join([*prefix, words[-1]]) for prefix, words in zip(prefixes, parts, strict=True)
        ]
        if max(map(len, short)) <= LONG:
            break
    short = [n if len(n) <= LONG else f"{n[: LONG // 2]}…{n[1 - LONG // 2 :]}" for n in short]
    return short if len(set(short)) == len(set(full)) else full


def heatmap(
    ax: Axes, names: Sequence[str], columns: Sequence[str], values: np.ndarray, *, label: str
) -> None:
    """Draw `values[column, row]` as colours, in the logarithm if they span much; nan is grey."""
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    norm = (LogNorm if 0 < 20 * low < high else Normalize)(low, high)
    edges = np.arange(len(columns) + 1) - 0.5, np.arange(len(names) + 1) - 0.5
    mesh = ax.pcolormesh(*edges, values.T, norm=norm, cmap="cividis")
    ax.set_facecolor("#dddddd")
    ax.grid(visible=False)
    ax.figure.colorbar(mesh, ax=ax, label=label, pad=0.02, aspect=30)
    label_rows(ax, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    tick_indices = np.arange(0, len(columns), 1 + len(columns) // 8)
    ax.set_xticks(tick_indices, np.array(columns)[tick_indices])
