"""Lottery, Figure 5: loss contours early in the training (the paper's epoch 5 of 180).

The paper's claim: new skips and rescaled initialisation change the landscape most at this stage,
label smoothing least. The planes are those of Li et al. (2018): the same two Gaussian,
filter-normalised directions for all nets, zero on dead weights, and common levels. Batch norm is
measured anew at every point: so early, its running statistics lag behind the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.need import Need
from sparsediag import plotting

RUNS = {"vanilla": (), "skip": ("GSk",), "LRsI": ("LRsI",), "LS": ("LS",)}
ANEW = (("statistics", "estimate"),)
NEEDS = {
    label: Need("landscape", tweaks=tweaks, when="early", options=ANEW)
    for label, tweaks in RUNS.items()
}


def draw(results: dict[str, Any]) -> Figure:
    """One panel a net; the number is the mean rise of the loss over the plane."""
    fig = plotting.figure(plotting.PAGE, 2.6)
    panels = fig.subplots(1, len(results), sharex=True, sharey=True)
    levels = plotting.loss_levels(*(result.loss for result in results.values()))
    for ax, (label, result) in zip(panels, results.items(), strict=True):
        x, y = result.axes
        plotting.contours(ax, x, y, result.loss, levels=levels, bar=ax is panels[-1])
        rise = np.nanmean(result.loss) - result.centre
        ax.set(title=f"{label}: mean rise {rise:.2f}", xlabel="direction 1")
    panels[0].set_ylabel("direction 2")
    return fig
