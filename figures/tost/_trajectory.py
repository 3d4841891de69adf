"""What Figures 2 and 9 share: a record of the trainings over epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from sparsediag import plotting

Rows = list[dict[str, Any]]


def over_epochs(histories: list[Rows], key: str) -> np.ndarray:
    """One record of every seed, (seeds, epochs)."""
    return np.array([[row[key] for row in rows] for rows in histories])


def geometric_mean(values: np.ndarray) -> np.ndarray:
    """Over the seeds; NaN where a value is not positive."""
    mean: np.ndarray = np.exp(np.log(np.where(values > 0, values, np.nan)).mean(0))
    return mean


def plot(ax: Axes, histories: list[Rows], key: str, label: str) -> None:
    """Every seed as a thin line, their geometric mean as a thick one, drops of the rate dotted."""
    colour = plotting.COLOUR_OF[label]
    values = over_epochs(histories, key)
    epochs = np.arange(1, values.shape[1] + 1)
    for line in values:
        ax.plot(epochs, line, color=colour, lw=0.5, alpha=0.5)
    ax.plot(epochs, geometric_mean(values), color=colour, label=label)
    rates = [row["lr"] for row in histories[0]]
    for epoch in np.flatnonzero(np.diff(rates)):
        ax.axvline(epoch + 1.5, color="#999999", lw=0.6, ls=":", zorder=0)
    ax.set(xlabel="epoch", yscale="log")
