"""Draw landscapes: alone, side by side, and animated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from sparsediag.plotting import style
from sparsediag.plotting.style import COLOURS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure


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
    ax, labels = ax or style.new_axes(), map(style.escape_dollars, landscape.labels)
    if len(landscape.axes) == 1:
        _curves(landscape, ax)
        ax.set(xlabel=f"{next(labels)} ({landscape.unit})", ylabel="loss")
        return ax
    x, y = landscape.axes
    scale = style.plot_contours(ax, x, y, landscape.loss)
    if landscape.stops:
        _stops(landscape, ax, scale)
    else:
        ax.plot(0, 0, "+", color="white", ms=8)
    right, up = (f"{label}\n({landscape.unit})" for label in labels)
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
        ax.plot(0, landscape.centre, "+", color="black", ms=7)
    for name, (at,), net_loss in zip(
        landscape.stops, landscape.places, landscape.losses, strict=True
    ):
        ax.plot(at, net_loss, "o", mfc="white", mec="black", ms=4)
        label = style.escape_dollars(name)
        ax.annotate(label, (at, net_loss), xytext=(3, 4), textcoords="offset points", fontsize=6)
    if len(loss) > 1:
        ax.legend()


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
    )
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


def _outline() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.5, foreground="black")]


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
    fig = style.new_figure(style.PAGE, 1.2 + 2 * min(1.7, 5.2 / len(names)))
    fig.set_layout_engine("compressed")
    grid = fig.subplots(2, len(names), sharex=True, sharey=True)
    for i, (name, (upper, lower)) in enumerate(zip(names, grid.T, strict=True)):
        style.plot_contours(upper, x, y, losses[i], levels=levels, colorbar=i == len(names) - 1)
        upper.plot(0, 0, "+", color="white", ms=6)
        upper.set_title(name)
        mesh = lower.pcolormesh(x, y, differences[i].T, cmap="RdBu_r", vmin=-largest, vmax=largest)
        lower.set_aspect("equal")
        lower.set(title=f"against {names[0]}", xlabel=right)
    grid[0, 0].set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    fig.colorbar(
        mesh, ax=grid[1, -1], label="log10 of the ratio" if positive else "difference", shrink=0.85
    )
    grid[1, 0].set_visible(False)
    grid[0, 0].set_xlabel(right)
    for ax in (grid[0, 0], grid[1, 1]):
        ax.set_ylabel(up)
        ax.tick_params(labelbottom=True, labelleft=True)
    return fig


def animate(landscape: Surface) -> PlotlyFigure:
    """Return an animated plotly surface that shows one net after another at its own loss."""
    from plotly import graph_objects as go

    fig = style.plot_surface_3d(landscape.axes, landscape.loss, landscape.labels)
    if landscape.loss.ndim != 2 or landscape.lines or not landscape.stops:
        return fig
    (x, y), z, names = landscape.places.T, landscape.losses, landscape.stops

    def way(until: int) -> Any:
        return go.Scatter3d(
            x=x[:until],
            y=y[:until],
            z=z[:until],
            text=names[:until],
            mode="lines+markers",
            marker={"size": 4, "color": COLOURS[1]},
            line={"color": "black", "width": 3},
            name="the nets",
        )

    fig.add_trace(way(len(x)))
    frames = range(1, len(x) + 1)
    fig.frames = [go.Frame(data=[way(i)], traces=[1], name=names[i - 1]) for i in frames]
    play = {"label": "play", "method": "animate", "args": [None, {"frame": {"duration": 400}}]}
    steps = [
        {"label": name, "method": "animate", "args": [[name], {"mode": "immediate"}]}
        for name in names
    ]
    return fig.update_layout(
        updatemenus=[{"type": "buttons", "buttons": [play], "y": 0.1}], sliders=[{"steps": steps}]
    )
