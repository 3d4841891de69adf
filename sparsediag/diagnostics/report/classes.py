"""Channels that are inactive for a whole class of samples, block by block."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from sparsediag.diagnostics.activations import Activations
from sparsediag.diagnostics.report.charts import THIRD, name_places, room
from sparsediag.diagnostics.report.parts import figure, grid, numbers
from sparsediag.plotting import layers, style

ROWS = 10  # classes with a name beside the picture


def asleep(found: Mapping[str, Activations]) -> str:
    """A heat map a net, on common colours, where any channel is 0 for a whole class."""
    kept = {name: one for name, one in found.items() if len(one.classes) > 1}
    most = max((float(np.nan_to_num(one.class_dead).max()) for one in kept.values()), default=0)
    drawn = [
        figure(
            f"Asleep for a class, {name}",
            _heat(one, 100 * most),
            alt=_worst(one),
            note="In percent of the channels.",
        )
        for name, one in kept.items()
    ]
    return grid(*drawn, columns=3) if most else ""


def _worst(one: Activations) -> str:
    share = np.nan_to_num(one.class_dead)
    at, block = np.unravel_index(share.argmax(), share.shape)
    return f"At most {share[at, block]:.1%}, in {one.names[block]} for class {one.classes[at]}"


@style.style()
def _heat(one: Activations, most: float) -> Figure:
    width, height = THIRD
    names = layers.shorten(one.names)
    fig = style.new_figure(width, height + room(names))
    ax = fig.add_subplot()
    drawn = ax.imshow(
        100 * one.class_dead, cmap="cividis", vmin=0, vmax=most, aspect="auto", interpolation="none"
    )
    fig.colorbar(drawn, ax=ax, pad=0.02, aspect=30)
    rows = np.arange(0, len(one.classes), 1 + (len(one.classes) - 1) // ROWS)
    ax.set_yticks(rows, [str(one.classes[i]) for i in rows])
    name_places(ax, names)
    ax.set_ylabel("class")
    ax.grid(visible=False)
    return fig


def extremes(found: Mapping[str, Activations]) -> str:
    """Tables of the classes with the fewest and the most zeros and dead channels, a row a block."""
    tables = {}
    for name, one in found.items():
        if len(one.classes) < 2:
            continue
        shares = {"exactly 0": one.class_zeros, "dead channels": one.class_dead}
        tables[name] = [
            {"block": block}
            | {
                f"{what}, {end}": _told(one, share[:, i], sign)
                for what, share in shares.items()
                for end, sign in (("least", -1), ("most", 1))
            }
            for i, block in enumerate(one.names)
        ]
    return numbers(tables, "By class")


def _told(one: Activations, share: np.ndarray, sign: int) -> str:
    """The share of the class where it is largest, or smallest, and which one that is."""
    if np.isnan(share).all():
        return ""
    at = int(np.nanargmax(sign * share))
    return f"{share[at]:.1%} of {one.classes[at]}"
