"""Channels that are inactive for a whole class of samples, block by block."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from sparsediag.diagnostics.activations import Activations
from sparsediag.diagnostics.report.charts import THIRD, label_height, name_places
from sparsediag.diagnostics.report.parts import figure, grid, number_tables
from sparsediag.plotting import layers, style

ROWS = 10  # classes that are named beside the picture


def inactive_channels(results: Mapping[str, Activations]) -> str:
    """Draw for each network the share of channels that are 0 for all samples of a class."""
    results = {name: one for name, one in results.items() if len(one.classes) > 1}
    most = max((float(np.nan_to_num(one.class_dead).max()) for one in results.values()), default=0)
    pictures = [
        figure(
            f"Channels inactive for a class, {name}",
            _heat(one, 100 * most),
            alt=_worst(one),
            note="In percent of the channels.",
        )
        for name, one in results.items()
    ]
    return grid(*pictures, columns=3) if most else ""


def _worst(one: Activations) -> str:
    share = np.nan_to_num(one.class_dead)
    at, block = np.unravel_index(share.argmax(), share.shape)
    return f"At most {share[at, block]:.1%}, in {one.names[block]} for class {one.classes[at]}"


@style.style()
def _heat(one: Activations, most: float) -> Figure:
    width, height = THIRD
    names = layers.shorten(one.names)
    fig = style.new_figure(width, height + label_height(names))
    ax = fig.add_subplot()
    image = ax.imshow(
        100 * one.class_dead, cmap="cividis", vmin=0, vmax=most, aspect="auto", interpolation="none"
    )
    fig.colorbar(image, ax=ax, pad=0.02, aspect=30)
    rows = np.arange(0, len(one.classes), 1 + (len(one.classes) - 1) // ROWS)
    ax.set_yticks(rows, [str(one.classes[i]) for i in rows])
    name_places(ax, names)
    ax.set_ylabel("class")
    ax.grid(visible=False)
    return fig


def extremes(results: Mapping[str, Activations]) -> str:
    """Return tables of the classes with the fewest and the most zeros and dead channels."""
    tables = {}
    for name, one in results.items():
        if len(one.classes) < 2:
            continue
        shares = {"exactly 0": one.class_zeros, "dead channels": one.class_dead}
        tables[name] = [
            {"block": block}
            | {
                f"{what}, {end}": _extreme(one, share[:, i], sign)
                for what, share in shares.items()
                for end, sign in (("least", -1), ("most", 1))
            }
            for i, block in enumerate(one.names)
        ]
    return number_tables(tables, "By class")


def _extreme(one: Activations, share: np.ndarray, sign: int) -> str:
    """Return the largest share, or the smallest for sign -1, and its class."""
    if np.isnan(share).all():
        return ""
    at = int(np.nanargmax(sign * share))
    return f"{share[at]:.1%} of {one.classes[at]}"
