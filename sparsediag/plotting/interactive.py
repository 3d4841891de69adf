"""Landscapes that can be rotated: one figure for a notebook, a page of its own, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsediag.core import html
from sparsediag.core.atomic import atomic_write
from sparsediag.plotting import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sparsediag.plotting.landscape import Surface

HERE = Path(__file__).parent
CSS = (HERE / "page.css").read_text(encoding="utf-8")
DIGITS = 4  # of a number in a page
STILL = "<noscript><style>.turn, .turn-hint { display: none; }</style></noscript>"
HINT = "Drag or use the arrow keys to rotate."
ROUND = {"size": 4, "color": "white", "line": {"color": "black", "width": 2}}


def landscape_figure(landscape: Surface, levels: np.ndarray | None = None) -> Figure:
    """Return the surface of a plane with its networks on it, or the curves of lines.

    Args:
        landscape: What to draw.
        levels: Contour levels whose range the heights and colours have, so that surfaces can be
            compared (default: those of `style.loss_levels`).
    """
    if len(landscape.axes) == 1:
        return _curves(landscape)
    if levels is None:
        levels = style.loss_levels(landscape.loss, landscape.losses)
    labels = [f"{label}<br>({landscape.unit})" for label in landscape.labels]
    fig, height = surface_figure(landscape.axes, landscape.loss, labels, levels), _heights(levels)
    if not landscape.stops:  # a pin, since the surface hides a point
        low, high = height(np.array([landscape.centre, levels[-1]]))
        z, text = _plain(np.array([low, low + 0.5 * (high - low)])), f"loss {landscape.centre:.3g}"
        pin = {"x": [0, 0], "y": [0, 0], "z": z, "mode": "lines+text", "text": ["", text]}
        look = {"line": {"color": style.COLOURS[1], "width": 5}, "hoverinfo": "skip"}
        font = {"color": style.COLOURS[1], "size": 14}
        return fig.add_scatter3d(**pin, **look, textfont=font)
    return _add_path(fig, landscape, _plain(height(landscape.losses)))


def surface_figure(
    axes: np.ndarray, loss: np.ndarray, labels: Sequence[str], levels: np.ndarray
) -> Figure:
    """Return `loss[i, j]` at `axes[0, i]`, `axes[1, j]` as a surface in the range of the levels.

    If the levels span a decade or more, the heights are the logarithm of the loss.
    """
    from plotly import graph_objects as go

    heights = _heights(levels)
    low, high = heights(levels[[0, -1]]).tolist()
    values = style.round_ticks(levels)
    ticks = {"tickvals": heights(values).tolist(), "ticktext": style.format_distinct(values)}
    data = {
        "type": "surface",
        "x": _plain(axes[0]),
        "y": _plain(axes[1]),
        "z": [_plain(row) for row in heights(loss).T],
        "text": np.array([[f"{value:.3g}" for value in row] for row in loss.T]),
        "hovertemplate": "%{x:.2f}, %{y:.2f}: loss %{text}<extra></extra>",
        "cmin": low,
        "cmax": high,
        "colorscale": "Cividis",
        "showscale": False,
    }
    scene = {
        "xaxis": {"title": {"text": labels[0]}},
        "yaxis": {"title": {"text": labels[1]}},
        "zaxis": {"title": {"text": "loss"}, "range": [low, high], **ticks},
        "camera": {"eye": {"x": 1.2, "y": 1.2, "z": 1.0}, "center": {"x": 0, "y": 0, "z": -0.15}},
        "aspectratio": {"x": 1, "y": 1, "z": 0.75},
    }
    margin = dict.fromkeys("lrtb", 0)
    layout = {"scene": scene, "margin": margin, "showlegend": False, "template": "none"}
    return go.Figure({"data": [data], "layout": layout})


def _heights(levels: np.ndarray) -> Any:
    """Return the function from a loss to its height."""
    if not style.spans_decade(levels):
        return lambda loss: loss
    return lambda loss: np.log10(np.maximum(loss, levels[0]))


def _add_path(fig: Figure, landscape: Surface, heights: list[float | None]) -> Figure:
    """Add the networks and the path through them, and buttons that show one after another."""
    (x, y), names = landscape.places.T.tolist(), landscape.stops
    inner = range(1, len(names) - 1) if len(names) > 3 else ()
    shown = ["" if i in inner else name for i, name in enumerate(names)]
    hover = [f"{name}: {loss:.3g}" for name, loss in zip(names, landscape.losses, strict=True)]

    def path(until: int) -> dict[str, Any]:
        return {
            "type": "scatter3d",
            "x": x[:until],
            "y": y[:until],
            "z": heights[:until],
            "text": shown[:until],
            "hovertext": hover[:until],
            "hoverinfo": "text",
            "marker": ROUND,
            "mode": "lines+markers+text",
            "line": {"color": "black", "width": 3},
        }

    fig.add_trace(path(len(x)))
    if len(names) <= 3:
        return fig
    fig.frames = [
        {"data": [path(i)], "traces": [1], "name": name} for i, name in enumerate(names, start=1)
    ]
    play = {"label": "play", "method": "animate", "args": [None, {"frame": {"duration": 400}}]}
    steps = [
        {"label": name, "method": "animate", "args": [[name], {"mode": "immediate"}]}
        for name in names
    ]
    slider = {"steps": steps, "active": len(steps) - 1, "x": 0.14, "len": 0.8, "y": 0}
    slider |= {"currentvalue": {"visible": False}, "pad": {"t": 10}}
    button = {"type": "buttons", "buttons": [play], "x": 0.11, "y": 0, "yanchor": "top"}
    return fig.update_layout(updatemenus=[button], sliders=[slider], margin={"b": 70})


def _curves(landscape: Surface) -> Figure:
    """Return the loss along each line, with the networks on it."""
    from plotly import graph_objects as go

    (x,), lines = landscape.axes, np.atleast_2d(landscape.loss)
    names = [f"line {i}" for i in range(1, len(lines) + 1)] if len(lines) > 1 else ["loss"]
    margin = {"l": 60, "r": 20, "t": 20, "b": 50}
    legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}
    fig = go.Figure({"layout": {"template": "none", "margin": margin, "legend": legend}})
    for name, line in zip(names, lines, strict=True):
        fig.add_scatter(x=_plain(x), y=_plain(line), name=name, mode="lines")
    places = landscape.places[:, 0].tolist() if landscape.stops else [0.0]
    losses = landscape.losses if landscape.stops else np.array([landscape.centre])
    text = landscape.stops or ["the weights"]
    marks: dict[str, Any] = {
        "mode": "markers+text",
        "textposition": "top center",
        "name": "networks",
    }
    marks |= {"marker": {"color": "black", "size": 7}, "text": text}
    fig.add_scatter(x=places, y=_plain(losses), **marks)
    fig.update_xaxes(title_text=f"{landscape.labels[0]} ({landscape.unit})", zeroline=False)
    kind = "log" if style.spans_decade(style.loss_levels(lines)) else "linear"
    return fig.update_yaxes(title_text="loss", type=kind, zeroline=False)


def _plain(values: np.ndarray) -> list[float | None]:
    """Round numbers to few digits; non-finite numbers become None."""
    return [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in values.tolist()]


def rotatable(fig: Figure, alt: str) -> str:
    """Return the HTML of a figure that `scripts` draws, with a description of it in words."""
    data = fig.to_json().replace("<", "\\u003c")
    return (
        f'<div class="turn" tabindex="0" role="img" aria-label="{escape(alt)}">'
        f'<script type="application/json">{data}</script></div>'
    )


def scripts() -> str:
    """Return the scripts that draw the figures of a page, plotly's own among them."""
    from plotly.offline import get_plotlyjs

    own = (HERE / "page.js").read_text(encoding="utf-8")
    return f"<script>{get_plotlyjs()}</script><script>{own}</script>"


def write_page(fig: Figure, path: Path, *, title: str, about: str) -> None:
    """Write one figure as a page that needs no network.

    Args:
        fig: The figure.
        path: The file.
        title: Heading: what is drawn.
        about: The line below it: network, data and samples.
    """
    hint = f'<p class="turn-hint">{HINT}</p>' if fig.layout.scene.xaxis.title.text else ""
    body = (
        f"<header><h1>{escape(title)}</h1><p>{escape(about)}</p>{hint}</header>"
        f'<main class="alone">{rotatable(fig, f"{title}. {about}")}</main>{scripts()}'
    )
    with atomic_write(path) as draft:
        page = html.page(f"{title} \N{EN DASH} {about}", body, style=CSS, head=STILL)
        draft.write_text(page, encoding="utf-8")
