"""What Figures 2 and 9 share: a record of the trainings over epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from sparsediag import plotting

Rows = list[dict[str, Any]]


def plot(ax: Axes, histories: list[Rows], key: str, label: str) -> None:
    """Every seed as a thin line, their geometric mean as a thick one, drops of the rate dotted."""
    colour = plotting.COLOUR_OF[label]
    values = np.array([[row[key] for row in rows] for rows in histories])
    epochs = np.arange(1, values.shape[1] + 1)
    for line in values:
        ax.plot(epochs, line, color=colour, lw=0.5, alpha=0.5)
    positive = np.where(values > 0, values, np.nan)
    ax.plot(epochs, np.exp(np.log(positive).mean(0)), color=colour, label=label)
    rates = [row["lr"] for row in histories[0]]
    for epoch in np.flatnonzero(np.diff(rates)):
        ax.axvline(epoch + 1.5, color="#999999", lw=0.6, ls=":", zorder=0)
    ax.set(xlabel="epoch", yscale="log")
