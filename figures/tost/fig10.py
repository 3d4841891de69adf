"""ToST, Figure 10: loss over the input space around test images, plain and with each tweak.

The paper's claim: every tweak flattens the landscape. It does not say which directions it draws;
above, the axes are the sign of the loss gradient in the image and a random direction of signs,
below, two random ones. Images, random directions and the levels of a row are common to all nets;
the surfaces are means over the images, each image's loss clamped at 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.need import Need
from sparsediag import plotting

RUNS = {"sparse": (), "GSk": ("GSk",), "GSw": ("GSw",), "LS": ("LS",)}
NEEDS = {
    (axes, label): Need("inputscape", tweaks=tweaks, split="test", options=(("axes", axes),))
    for axes in ("gradient", "random")
    for label, tweaks in RUNS.items()
}


def draw(results: dict[Any, Any]) -> Figure:
    """A panel a net and kind of axes; the number is the mean rise over the plane."""
    fig = plotting.figure(plotting.PAGE, 4.0)
    grid = fig.subplots(2, len(RUNS), sharex=True, sharey=True)
    means = {key: result.loss.mean(axis=0) for key, result in results.items()}
    for row, axes in zip(grid, ("gradient", "random"), strict=True):
        levels = plotting.loss_levels(*(means[axes, label] for label in RUNS))
        for ax, label in zip(row, RUNS, strict=True):
            mean, result = means[axes, label], results[axes, label]
            x, y = result.axes
            plotting.contours(ax, x, y, mean, levels=levels, bar=label == "LS")
            rise = np.nanmean(mean) - result.centre.mean()
            ax.set(title=f"{label}: mean rise {rise:.3f}", xlabel=result.labels[0])
        row[0].set_ylabel(result.labels[1])
    return fig
