"""ToST, Figure 2: the top Hessian eigenvalue during the training of a plain sparse network.

ResNet-18 on CIFAR-100, a lottery ticket with 90 % sparsity. The paper's claim: sparse training
follows a highly chaotic trajectory. The paper defines no measure of that and shows no dense network
for comparison. Here the measure is how often the eigenvalue turns, from rising to falling or back:
a monotonic series never turns, a random walk turns in half of the epochs, independent values in two
thirds.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from figures.claims import Claim
from figures.histories import before_first_drop, eigenvalue, log10
from figures.measurement import Results, by_seed
from figures.scales import Scale
from figures.tost import trajectories
from sparsediag.plotting import style

MEASUREMENTS = {k: m for k, m in trajectories.MEASUREMENTS.items() if k[0] == "base"}


def turns(results: Results) -> list[float]:
    """Return the share of epochs at which the eigenvalue turns, minus 1/2, for each seed.

    Only epochs before the first drop of the learning rate count.
    """
    shares = []
    for history in by_seed(results, "base", trajectories.DENSITY).values():
        steps = np.diff(log10(before_first_drop(history), eigenvalue))
        if len(steps) > 1:
            shares.append(float(np.mean(steps[1:] * steps[:-1] < 0)) - 0.5)
    return shares


CLAIMS = (
    Claim(
        says="Before the first drop of the learning rate, the top eigenvalue of a plain sparse "
        "network turns more often than a random walk",
        quote="sparse training follows a highly chaotic optimization trajectory",
        source="section 2.2",
        margin=turns,
        unit="share of epochs",
    ),
)


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
