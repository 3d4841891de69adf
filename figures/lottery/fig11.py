"""Lottery, Figure 11: loss surfaces of the trained nets over the input space, clamped at 8.

The paper's claim: the tweaks flatten the landscape around test images, label smoothing most in
this late phase. The axes are the sign of the loss gradient in the image and a random direction of
signs that all nets share; the surface is the mean over test images that all nets share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.need import Need
from sparsediag import plotting

RUNS = {"vanilla": (), "Swish": ("GSw",), "skip": ("GSk",), "LS": ("LS",)}
NEEDS = {label: Need("inputscape", tweaks=tweaks, split="test") for label, tweaks in RUNS.items()}


def draw(results: dict[str, Any]) -> Figure:
    """A surface a net, all to one height and one scale of colour."""
    fig = plotting.figure(plotting.PAGE, 2.3)
    means = {label: result.loss.mean(axis=0) for label, result in results.items()}
    top = max(mean.max() for mean in means.values())
    for i, (label, mean) in enumerate(means.items()):
        ax = fig.add_subplot(1, len(means), i + 1, projection="3d")
        x, y = np.meshgrid(*results[label].axes, indexing="ij")
        ax.plot_surface(x, y, mean, cmap="cividis", vmin=0, vmax=top, linewidth=0)
        ax.set(xlabel="gradient sign", ylabel="random", zlim=(0, top))
        ax.set_title(label, y=0.9)
        ax.tick_params(labelsize=5, pad=-2)
        ax.xaxis.labelpad = ax.yaxis.labelpad = -8
        ax.set_box_aspect(None, zoom=0.9)
    return fig
