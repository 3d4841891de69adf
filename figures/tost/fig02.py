"""ToST, Figure 2: the top Hessian eigenvalue during the training of a plain sparse network.

ResNet-18 on CIFAR-100, a lottery ticket with 90 % sparsity. The paper calls its trajectory highly
chaotic; it gives no measure and no other network to compare with, so there is nothing to judge. The
title has the mean factor between the eigenvalues of successive epochs.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from figures.histories import eigenvalue
from figures.measurement import Results
from figures.scales import Scale
from figures.tost import trajectories
from sparsediag.plotting import style

MEASUREMENTS = {k: m for k, m in trajectories.MEASUREMENTS.items() if k[0] == "base"}


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the top eigenvalue over epochs; dotted lines are the drops of the learning rate."""
    fig = style.new_figure(style.COLUMN, 2.1)
    ax = fig.add_subplot()
    trajectories.plot(ax, results, eigenvalue, "base")
    ax.set(xlabel="epoch", ylabel="top Hessian eigenvalue")
    steps = [trajectories.mean_step(history, eigenvalue) for history in results.values()]
    if np.isfinite(steps).any():
        factor = 10 ** float(np.nanmean(steps))
        ax.set_title(f"before the first drop: {factor:.2f} x from epoch to epoch")
    return fig
