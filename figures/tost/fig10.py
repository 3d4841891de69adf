"""ToST, Figure 10: loss landscape of the sparse net, plain and with each tweak.

The paper's claim: every tweak flattens the landscape. The paper's surfaces are drawn over the
input space; these are over the weights, along the same two Gaussian, filter-normalised directions
for all nets and with common levels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.need import Need
from sparsediag import plotting

RUNS = {"sparse": (), "GSk": ("GSk",), "GSw": ("GSw",), "LS": ("LS",)}
NEEDS = {label: Need("landscape", tweaks=tweaks) for label, tweaks in RUNS.items()}


def draw(results: dict[str, Any]) -> Figure:
    """One panel a net; the number is the mean rise of the loss over the plane."""
    fig = plotting.figure(plotting.PAGE, 2.1)
    panels = fig.subplots(1, len(results), sharex=True, sharey=True)
    levels = plotting.loss_levels(*(result.loss for result in results.values()))
    for ax, (label, result) in zip(panels, results.items(), strict=True):
        last = ax is panels[-1]
        x, y = result.axes
        plotting.contours(ax, x, y, result.loss, levels=levels, bar=last)
        rise = np.nanmean(result.loss) - result.centre
        ax.set(title=f"{label}: mean rise {rise:.2f}", xlabel="direction 1")
    panels[0].set_ylabel("direction 2")
    return fig
