"""Lottery, Figure 11: loss surfaces of the trained networks in the space of the inputs.

The paper's claims: the tweaks flatten the landscape around test images, and label smoothing changes
it most in this late phase. The axes are the sign of the loss gradient in the image and a random
direction of signs; the surface is the mean over test images, with the loss of each image clamped at
8. All networks share the random direction and the images. The paper does not say which network its
second panel shows; here it is LRsI, so that the networks are those of Figure 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.claims import Claim
from figures.effect_sizes import mean
from figures.loss_surfaces import first_seeds, flatter_inputs, mean_rise
from figures.lottery.runs import run
from figures.measurement import ALL_SEEDS, Measurement, Results
from figures.scales import Scale
from sparsediag.plotting import style

TWEAKS = {"LRsI": "rescaled initialisation", "skip": "new skips", "LS": "label smoothing"}
KINDS = ("vanilla", *TWEAKS)
MEASUREMENTS = {
    (kind, seed): Measurement(run(kind, seed=seed), "inputscape", split="test")
    for kind in KINDS
    for seed in ALL_SEEDS
}


CLAIMS = (
    Claim(
        says="Skips, LS and LRsI flatten the loss around test images, on average",
        quote="our methods notably flatten the landscape w.r.t. input space, compared to "
        "vanilla-LTH baseline",
        source="section 4.6",
        margin=mean(*(flatter_inputs((kind,), ("vanilla",)) for kind in TWEAKS)),
        unit="nats",
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the surface of each network, its first seed, with common height and colours."""
    first_results = first_seeds(results, KINDS)
    fig = style.new_figure(1.75 * len(first_results), 2.2)
    top = max(float(np.nanmax(result.mean)) for result in first_results.values())
    for i, (kind, result) in enumerate(first_results.items()):
        ax: Any = fig.add_subplot(1, len(first_results), i + 1, projection="3d")
        x, y = np.meshgrid(*result.axes, indexing="ij")
        ax.plot_surface(x, y, result.mean, cmap="cividis", vmin=0, vmax=top, linewidth=0)
        ax.set(zlim=(0, top))
        ends = (result.axes[0, 0], 0, result.axes[0, -1])
        ax.set(xticks=ends, yticks=ends)
        ax.set_xlabel(result.labels[0], fontsize=5, labelpad=-8)
        ax.set_ylabel(result.labels[1], fontsize=5, labelpad=-8)
        ax.set_title(f"{kind}\nloss, mean rise {mean_rise(result):.2f}", y=0.9)
        ax.tick_params(labelsize=5, pad=-3)
        ax.set_box_aspect(None, zoom=0.85)
    return fig
