"""Draw landscapes: alone, and side by side."""

from __future__ import annotations

import textwrap
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from sparsediag.plotting import layers, style
from sparsediag.plotting.style import COLOURS

WIDE = 2  # ratio of the sides from which a plane has no equal scale on both axes


class Surface(Protocol):
    """Arrays of a loss on a line or a plane, as `Landscape` has them."""

    @property
    def axes(self) -> np.ndarray: ...
    @property
    def loss(self) -> np.ndarray: ...
    @property
    def labels(self) -> list[str]: ...
    @property
    def unit(self) -> str: ...
    @property
    def centre(self) -> float: ...
    @property
    def lengths(self) -> np.ndarray: ...
    @property
    def lines(self) -> bool: ...
    @property
    def stops(self) -> list[str]: ...
    @property
    def places(self) -> np.ndarray: ...
    @property
    def away(self) -> np.ndarray: ...
    @property
    def losses(self) -> np.ndarray: ...


class Surfaces(Protocol):
    """Arrays of several losses on one plane, as `Comparison` has them."""

    @property
    def axes(self) -> np.ndarray: ...
    @property
    def losses(self) -> np.ndarray: ...
    @property
    def names(self) -> list[str]: ...
    @property
    def labels(self) -> list[str]: ...
    @property
    def unit(self) -> str: ...


@style.style()
def plot_landscape(landscape: Surface, ax: Axes | None = None) -> Axes:
    """Plot a curve, curves with their band, or filled contours with the nets on them."""
    ax = ax or (style.new_axes() if len(landscape.axes) == 1 else style.new_plane_axes())
    labels = map(style.escape_dollars, landscape.labels)
    if len(landscape.axes) == 1:
        _curves(landscape, ax)
        ax.set(xlabel=f"{next(labels)} ({landscape.unit})", ylabel="loss")
        layers.set_log_scale(ax, "y")
        return ax
    x, y = landscape.axes
    scale = style.plot_contours(ax, x, y, landscape.loss)
    if landscape.stops:
        _stops(landscape, ax, scale)
    else:
        mark_weights(ax)
    right, up = (f"{textwrap.fill(label, 26)}\n({landscape.unit})" for label in labels)
    if max(np.ptp(x), np.ptp(y)) > WIDE * min(np.ptp(x), np.ptp(y)):
        ax.set_aspect("auto")
    ax.set(xlabel=right, ylabel=up, xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    return ax


def _curves(landscape: Surface, ax: Axes) -> None:
    (x,), loss = landscape.axes, np.atleast_2d(landscape.loss)
    if len(loss) > 1:
        ax.fill_between(
            x, loss.min(0), loss.max(0), color=COLOURS[4], alpha=0.4, lw=0, label="all lines"
        )
    ax.plot(x, loss.mean(0), color=COLOURS[0], label="mean" if len(loss) > 1 else None)
    if not landscape.stops:
        ax.plot(0, landscape.centre, "+", color="black", ms=7, label="the weights")
    own = "the networks' own losses"  # once in the legend
    for name, (at,), net_loss in zip(
        landscape.stops, landscape.places, landscape.losses, strict=True
    ):
        ax.plot(at, net_loss, "o", mfc="white", mec="black", ms=4, label=own)
        own, label = "", style.escape_dollars(name)
        ax.annotate(label, (at, net_loss), xytext=(3, 4), textcoords="offset points", fontsize=6)
    layers.add_legend(ax, 3)


def mark_weights(ax: Axes, label: str = "the weights") -> None:
    """Draw a cross at the weights, in the middle of a plane, and a legend above."""
    ax.plot(0, 0, "+", color="white", ms=8, path_effects=_outline(3), label=label)
    layers.add_legend(ax)


def _stops(landscape: Surface, ax: Axes, scale: ContourSet) -> None:
    """Plot the path from net to net; a marker's colour is the net's loss on the plane's scale."""
    x, y = landscape.places.T
    ax.plot(x, y, color="white", lw=1.5)
    ax.plot(x, y, color="black", lw=0.6)
    ax.scatter(
        x,
        y,
        c=scale.to_rgba(np.maximum(landscape.losses, min(scale.levels))),
        s=22,
        ec="black",
        zorder=3,
        label="networks, in the colours of their losses",
    )
    layers.add_legend(ax)
    ends = {0, len(x) - 1} if len(x) > 3 else set(range(len(x)))
    for i in sorted(ends):
        right, up = _sides(landscape, i)
        away = landscape.away[i]
        off = f"\n{away:.2g} off" if away > 0.005 * landscape.lengths.max() else ""
        ax.annotate(
            style.escape_dollars(landscape.stops[i]) + off,
            (x[i], y[i]),
            xytext=(4 * right, 4 * up),
            ha="left" if right > 0 else "right",
            va="bottom" if up > 0 else "top",
            textcoords="offset points",
            fontsize=6,
            color="white",
            path_effects=_outline(),
            in_layout=False,
        )


def _sides(landscape: Surface, stop: int) -> np.ndarray:
    """Return on which side the name of a stop goes, 1 or -1 along each axis, away from the path."""
    at, near = landscape.places[stop], landscape.places[max(0, stop - 1) : stop + 2].mean(axis=0)
    low, high = landscape.axes[:, [0, -1]].T
    share = (at - low) / (high - low)
    away = np.where(at < near, -1, 1)
    return np.where(share > [0.7, 0.9], -1, np.where(share < [0.3, 0.1], 1, away))


def _outline(width: float = 1.5) -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground="black")]


@style.style()
def plot_comparison(comparison: Surfaces) -> Figure:
    """Plot planes with common axes and colours, and below how each compares with the first."""
    if len(comparison.axes) != 2:
        raise ValueError("panels show planes; need dims=2")
    losses, (x, y) = comparison.losses, comparison.axes
    names = [style.escape_dollars(name) for name in comparison.names]
    right, up = (f"{label}\n({comparison.unit})" for label in comparison.labels)
    levels = style.loss_levels(*losses)
    positive = bool((losses > 0).all())
    with np.errstate(invalid="ignore"):
        differences = np.log10(losses / losses[0]) if positive else losses - losses[0]
    largest = float(np.abs(differences[np.isfinite(differences)]).max(initial=1e-12))
    side = min(1.7, 5.2 / len(names))  # inches of a panel
    titles = [textwrap.fill(name, int(16 * side)) for name in names]
    lines = max(title.count("\n") for title in titles)
    fig = style.new_figure(style.PAGE, 1.2 + 2 * side + 0.12 * lines)
    fig.set_layout_engine("compressed")
    grid = fig.subplots(2, len(names), sharex=True, sharey=True)
    for ax, title, loss in zip(grid[0], titles, losses, strict=True):
        style.plot_contours(ax, x, y, loss, levels=levels, colorbar=ax is grid[0, -1])
        ax.plot(0, 0, "+", color="white", ms=6, path_effects=_outline(3))
        ax.set_title(title)
    for ax, difference in zip(grid[1, 1:], differences[1:], strict=True):
        mesh = ax.pcolormesh(x, y, difference.T, cmap="RdBu_r", vmin=-largest, vmax=largest)
        ax.set_aspect("equal")
        ax.set_xlabel(right)
    label = "log10 of the ratio" if positive else "difference"
    fig.colorbar(mesh, ax=grid[1, -1], label=label, shrink=0.85)
    grid[0, 0].set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xlabel=right)
    first = textwrap.fill(names[0], int(18 * side))
    about = f"above: the loss\n+: the weights\n\nright: {label}\nto the loss of\n{first}"
    corner = grid[1, 0]
    corner.text(0, 1, about, va="top", fontsize=7, transform=corner.transAxes)
    corner.axis("off")
    for ax in (grid[0, 0], grid[1, 1]):
        ax.set_ylabel(up)
        ax.tick_params(labelbottom=True, labelleft=True)
    return fig
