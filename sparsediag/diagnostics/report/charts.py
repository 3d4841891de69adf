"""Charts: curves of several nets on common axes, each net in its own colour and with its marker."""

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

HALF, THIRD = (4.4, 2.6), (3.6, 2.4)  # inches; of a page two or three beside each other
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖"}
MANY, SMOOTH = 12, 100  # points of a line that has markers on some, or on none

Curve = tuple[np.ndarray, np.ndarray]
Looks = Mapping[str, tuple[str, str]]


def looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for every net.

    >>> looks(["a", "b"])["b"]
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
    across: str,
    up: str,
    looks: Looks,
    log: bool = False,
    ticks: Sequence[str] = (),
    rings: Mapping[str, float] | None = None,
    limits: tuple[float, float] | None = None,
    size: tuple[float, float] = HALF,
) -> Figure:
    """A curve a net.

    Args:
        solid: Name -> places and values.
        dashed: The same for a second, thinner curve of the same colour.
        across: What the places are.
        up: What the values are.
        looks: Of each net.
        log: Values on a logarithmic axis, if they go over a decade or more.
        ticks: Names of the places, where they have some.
        rings: Name -> a place to bring out.
        limits: Of the values, where they go beyond what matters.
        size: Width and height, without the names of the places.
    """
    width, height = size
    fig = style.new_figure(width, height + room(ticks))
    ax = fig.add_subplot()
    for name, (x, y) in (dashed or {}).items():
        ax.plot(x, y, "--", lw=0.8, color=looks[name][0])
    for i, (name, (x, y)) in enumerate(solid.items(), 1 - len(solid)):
        colour, marker = looks[name]
        marker = "" if len(x) > SMOOTH else marker
        every = 1 if ticks else 1 + len(x) // MANY
        below = min(-i, 2)  # curves that coincide are all seen
        (line,) = ax.plot(x, y, f"{marker}-", color=colour, markevery=every)
        line.set(linewidth=1.2 + 0.7 * below, markersize=3.5 + 1.3 * below)
        if rings and name in rings:
            at = int(np.argmin(np.abs(x - rings[name])))
            ax.plot(x[at], y[at], "o", ms=9, mfc="none", color=colour)
    if log and _wide([y for _, y in (*solid.values(), *(dashed or {}).values())]):
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")
    ax.set(xlabel=across, ylabel=up, ylim=limits)
    if ticks:
        name_places(ax, ticks)
    elif all(x.dtype.kind == "i" for x, _ in solid.values()):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig


def room(names: Sequence[str]) -> float:
    """Inches that names below a picture need."""
    return 0.055 * max(map(len, names), default=0)


def name_places(ax: Axes, names: Sequence[str]) -> None:
    """Name the places 0, 1, ... below `ax`, as many of them as there is room for."""
    wide = ax.figure.get_figure(root=True).get_figwidth() - 0.8  # without what is beside it
    shown = range(0, len(names), 1 + int(0.1 * len(names) / wide))
    ax.set_xticks(shown, [names[i] for i in shown], rotation=90, fontsize=6)


def _wide(values: Sequence[np.ndarray]) -> bool:
    seen = np.concatenate([v[np.isfinite(v)] for v in values])
    return bool(seen.size and seen.min() > 0 and seen.max() >= 10 * seen.min())


def over_depth(
    values: Mapping[str, tuple[Sequence[str], np.ndarray]],
    dashed: Mapping[str, tuple[Sequence[str], np.ndarray]] | None = None,
    *,
    part: str,
    up: str,
    looks: Looks,
    log: bool = False,
    limits: tuple[float, float] | None = None,
    size: tuple[float, float] = HALF,
) -> Figure:
    """A value for every layer, from the input to the output; named where all nets have the same."""
    drawn: list[dict[str, Curve]] = [
        {
            name: (np.arange(len(found)), np.where(found > 0, found, np.nan) if log else found)
            for name, (_, found) in some.items()
        }
        for some in (values, dashed or {})
    ]
    layers = [depth.shorten(names) for names, _ in values.values()]
    same = all(names == layers[0] for names in layers)
    across = "" if same else f"{part}, from the input to the output"
    ticks = layers[0] if same else []
    how: dict[str, Any] = {"looks": looks, "log": log, "limits": limits, "size": size}
    return lines(*drawn, across=across, up=up, ticks=ticks, **how)


@style.style()
def eigenvalues(found: Mapping[str, Spectrum], looks: Looks) -> Figure:
    """The largest eigenvalues of each net with their intervals; hollow if they are doubtful."""
    fig = style.new_figure(*HALF)
    ax, most = fig.add_subplot(), 1
    for i, (name, one) in enumerate(found.items()):
        colour, marker = looks[name]
        place = np.arange(1, len(one.eigenvalues) + 1) + 0.1 * (i - (len(found) - 1) / 2)
        reach = np.abs(one.intervals - one.eigenvalues[:, None]).T
        ax.errorbar(
            place,
            one.eigenvalues,
            yerr=reach,
            fmt=marker,
            color=colour,
            ms=5,
            capsize=3,
            mfc=colour if one.converged else "none",
        )
        most = max(most, len(place))
    ax.set(xlabel="eigenvector", ylabel="eigenvalue", xlim=(0.5, most + 0.5))
    low, high = ax.get_ylim()
    ax.set_ylim(min(0.0, low), high + 0.05 * (high - low))
    ax.set_xticks(range(1, most + 1))
    return fig


def densities(found: Mapping[str, Spectrum], looks: Looks) -> Figure:
    """The spectral density of each net, on a logarithmic axis."""
    ends = [(min(one.lowest, 0.0), float(one.eigenvalues.max())) for one in found.values()]
    low, high = min(a for a, _ in ends), max(b for _, b in ends)
    width = max(high - low, 1e-12) / 100
    places = np.linspace(low - 4 * width, high + 4 * width, 300)
    drawn = {name: one.density(places, width)[0] for name, one in found.items()}
    most = max(float(density.max()) for density in drawn.values())
    curves: dict[str, Curve] = {
        name: (places, np.maximum(density, 1e-9 * most)) for name, density in drawn.items()
    }
    return lines(curves, across="eigenvalue", up="density", looks=looks, log=True)


@style.style()
def contours(landscape: Landscape, levels: np.ndarray) -> Figure:
    """A plane as filled contours, at levels that several share."""
    fig = style.new_figure(HALF[0], 3.2)
    fig.set_layout_engine("compressed")
    ax: Axes = fig.add_subplot()
    x, y = landscape.axes
    style.plot_contours(ax, x, y, landscape.loss, levels=levels)
    ax.plot(0, 0, "+", color="white", ms=8)
    right, up = (f"{label}\n({landscape.unit})" for label in landscape.labels)
    ax.set(xlabel=right, ylabel=up)
    ax.locator_params(nbins=5)
    return fig


def told(values: Mapping[str, tuple[Sequence[Any] | np.ndarray, np.ndarray]], form: str) -> str:
    """Where each line is lowest and highest, in words.

    >>> told({"net": (["conv", "fc"], np.array([0.2, 0.05]))}, ".0%")
    'net: lowest 5% at fc, highest 20% at conv'
    """
    said = []
    for name, (places, line) in values.items():
        seen = np.flatnonzero(np.isfinite(line))
        if not seen.size:
            said.append(f"{name}: no finite value")
            continue
        low, high = seen[line[seen].argmin()], seen[line[seen].argmax()]
        at = [p if isinstance(p, str) else f"{p:.3g}" for p in (places[low], places[high])]
        said.append(
            f"{name}: lowest {line[low]:{form}} at {at[0]}, highest {line[high]:{form}} at {at[1]}"
        )
    return "; ".join(said)
