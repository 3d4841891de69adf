"""Charts of several networks on common axes: each network has a colour and a marker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sparsediag.diagnostics.landscape import Landscape
from sparsediag.diagnostics.spectrum import Spectrum
from sparsediag.plotting import layers as depth
from sparsediag.plotting import style
from sparsediag.plotting.landscape import mark_weights

HALF, THIRD = (4.4, 2.6), (3.6, 2.4)  # inches; two or three side by side on a page
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖"}
MANY, SMOOTH = 12, 100  # points of a line that has markers on some, or on none

Curve = tuple[np.ndarray, np.ndarray]
LineStyles = Mapping[str, tuple[str, str]]


def line_styles(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return a colour and a marker for each network.

    >>> line_styles(["a", "b"])["b"]
    ('#D55E00', 's')
    """
    colours, markers = style.COLOURS, list(MARKERS)
    return {
        name: (colours[i % len(colours)], markers[i % len(markers)]) for i, name in enumerate(names)
    }


@style.style()
def lines(
    solid: Mapping[str, Curve],
    dashed: Mapping[str, Curve] | None = None,
    *,
    xlabel: str,
    ylabel: str,
    line_styles: LineStyles,
    log: bool = False,
    ticks: Sequence[str] = (),
    rings: Mapping[str, float] | None = None,
    limits: tuple[float, float] | None = None,
    size: tuple[float, float] = HALF,
) -> Figure:
    """Draw one curve for each network.

    Args:
        solid: Network -> (x, y).
        dashed: The same, for a second, thinner curve of the same colour.
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.
        line_styles: Colour and marker of each network.
        log: Use a logarithmic y axis if the values span a decade or more.
        ticks: Names of the places 0, 1, ... on the x axis.
        rings: Network -> x of a point to highlight.
        limits: Limits of the y axis.
        size: Width and height in inches, without the height of the tick labels.
    """
    width, height = size
    fig = style.new_figure(width, height + label_height(ticks))
    ax = fig.add_subplot()
    for name, (x, y) in (dashed or {}).items():
        ax.plot(x, y, "--", lw=0.8, color=line_styles[name][0])
    for i, (name, (x, y)) in enumerate(solid.items(), 1 - len(solid)):
        colour, marker = line_styles[name]
        marker = "" if len(x) > SMOOTH else marker
        every = 1 if ticks else 1 + len(x) // MANY
        below = min(-i, 2)  # so that coinciding curves all show
        (line,) = ax.plot(x, y, f"{marker}-", color=colour, markevery=every)
        line.set(linewidth=1.2 + 0.7 * below, markersize=3.5 + 1.3 * below)
        if rings and name in rings:
            at = int(np.argmin(np.abs(x - rings[name])))
            ax.plot(x[at], y[at], "o", ms=9, mfc="none", color=colour)
    if log:
        depth.set_log_scale(ax, "y")
    ax.set(xlabel=xlabel, ylabel=ylabel, ylim=limits)
    if ticks:
        name_places(ax, ticks)
    elif all(x.dtype.kind == "i" for x, _ in solid.values()):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig


def label_height(names: Sequence[str]) -> float:
    """Return the height in inches of rotated tick labels."""
    return 0.055 * max(map(len, names), default=0)


def name_places(ax: Axes, names: Sequence[str]) -> None:
    """Label the places 0, 1, ... below `ax`, as many of them as fit."""
    width = ax.figure.get_figure(root=True).get_figwidth() - 0.8  # without the y axis and its label
    tick_indices = range(0, len(names), 1 + int(0.1 * len(names) / width))
    ax.set_xticks(tick_indices, [names[i] for i in tick_indices], rotation=90, fontsize=6)


def over_depth(
    values: Mapping[str, tuple[Sequence[str], np.ndarray]],
    dashed: Mapping[str, tuple[Sequence[str], np.ndarray]] | None = None,
    *,
    part: str,
    ylabel: str,
    line_styles: LineStyles,
    log: bool = False,
    limits: tuple[float, float] | None = None,
    size: tuple[float, float] = HALF,
) -> Figure:
    """Draw a value for each layer, from input to output, with names that all networks share."""
    curves: list[dict[str, Curve]] = [
        {
            name: (np.arange(len(line)), np.where(line > 0, line, np.nan) if log else line)
            for name, (_, line) in some.items()
        }
        for some in (values, dashed or {})
    ]
    layers = [depth.shorten(names) for names, _ in values.values()]
    same = all(names == layers[0] for names in layers)
    xlabel = "" if same else f"{part}, from the input to the output"
    ticks = layers[0] if same else []
    options: dict[str, Any] = {
        "line_styles": line_styles,
        "log": log,
        "limits": limits,
        "size": size,
    }
    return lines(*curves, xlabel=xlabel, ylabel=ylabel, ticks=ticks, **options)


@style.style()
def eigenvalues(spectra: Mapping[str, Spectrum], line_styles: LineStyles) -> Figure:
    """Draw the largest eigenvalues of each network with intervals; hollow if not converged."""
    fig = style.new_figure(*HALF)
    ax, most = fig.add_subplot(), 1
    for i, (name, one) in enumerate(spectra.items()):
        colour, marker = line_styles[name]
        positions = np.arange(1, len(one.eigenvalues) + 1) + 0.1 * (i - (len(spectra) - 1) / 2)
        reach = np.abs(one.intervals - one.eigenvalues[:, None]).T
        ax.errorbar(
            positions,
            one.eigenvalues,
            yerr=reach,
            fmt=marker,
            color=colour,
            ms=5,
            capsize=3,
            mfc=colour if one.converged else "none",
        )
        most = max(most, len(positions))
    ax.set(xlabel="eigenvector", ylabel="eigenvalue", xlim=(0.5, most + 0.5))
    low, high = ax.get_ylim()
    ax.set_ylim(min(0.0, low), high + 0.05 * (high - low))
    ax.set_xticks(range(1, most + 1))
    return fig


def densities(spectra: Mapping[str, Spectrum], line_styles: LineStyles) -> Figure:
    """Draw the spectral density of each network, on a logarithmic axis."""
    ends = [(min(one.lowest, 0.0), float(one.eigenvalues.max())) for one in spectra.values()]
    low, high = min(a for a, _ in ends), max(b for _, b in ends)
    width = max(high - low, 1e-12) / 100
    points = np.linspace(low - 4 * width, high + 4 * width, 300)
    curve_of = {name: one.density(points, width)[0] for name, one in spectra.items()}
    most = max(float(density.max()) for density in curve_of.values())
    curves: dict[str, Curve] = {
        name: (points, np.maximum(density, 1e-9 * most)) for name, density in curve_of.items()
    }
    return lines(curves, xlabel="eigenvalue", ylabel="density", line_styles=line_styles, log=True)


@style.style()
def contours(landscape: Landscape, levels: np.ndarray) -> Figure:
    """Draw a landscape as filled contours at the given levels."""
    fig = style.new_figure(HALF[0], 3.2)
    fig.set_layout_engine("compressed")
    ax: Axes = fig.add_subplot()
    x, y = landscape.axes
    style.plot_contours(ax, x, y, landscape.loss, levels=levels)
    mark_weights(ax)
    right, up = (f"{label}\n({landscape.unit})" for label in landscape.labels)
    ax.set(xlabel=right, ylabel=up)
    ax.locator_params(nbins=5)
    return fig


def describe_values(
    values: Mapping[str, tuple[Sequence[Any] | np.ndarray, np.ndarray]], form: str
) -> str:
    """Describe in words where each line is lowest and highest.

    >>> describe_values({"net": (["conv", "fc"], np.array([0.2, 0.05]))}, ".0%")
    'net: lowest 5% at fc, highest 20% at conv'
    """
    descriptions = []
    for name, (places, line) in values.items():
        seen = np.flatnonzero(np.isfinite(line))
        if not seen.size:
            descriptions.append(f"{name}: no finite value")
            continue
        low, high = seen[line[seen].argmin()], seen[line[seen].argmax()]
        at = [p if isinstance(p, str) else f"{p:.3g}" for p in (places[low], places[high])]
        descriptions.append(
            f"{name}: lowest {line[low]:{form}} at {at[0]}, highest {line[high]:{form}} at {at[1]}"
        )
    return "; ".join(descriptions)
