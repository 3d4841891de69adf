"""ToST, Figure 2: the top Hessian eigenvalue while a plain sparse net trains.

ResNet-18 on CIFAR-100, a lottery ticket of 90 % sparsity. The paper's claim: sparse training
follows a highly chaotic trajectory. It gives no measure of that, and no dense net beside it. Here
it is put as turns: a series that keeps its course never turns, a random walk does in half of its
epochs, independent numbers in two thirds.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from figures.claims import Claim
from figures.scales import Scale
from figures.tost import _trajectory
from figures.tost._trajectory import Results, Row
from sparsediag.plotting import style

NEEDS = {label: need for label, need in _trajectory.NEEDS.items() if label[0] == "base"}


def eigenvalue(row: Row) -> float:
    """The top eigenvalue after an epoch."""
    return float(row["eigenvalue"])


def turns(results: Results) -> list[float]:
    """Share of epochs before the first drop at which the eigenvalue turns, less 1/2; one a seed."""
    found = []
    for rows in _trajectory.of(results, "base").values():
        calm = rows[: min(_trajectory.drops(rows), default=len(rows))]
        steps = np.diff(_trajectory.logs(calm, eigenvalue))
        if len(steps) > 1:
            found.append(float(np.mean(steps[1:] * steps[:-1] < 0)) - 0.5)
    return found


CLAIMS = (
    Claim(
        says="Before the first drop of the learning rate the top eigenvalue of a plain sparse net "
        "turns more often than a random walk",
        quote="sparse training follows a highly chaotic optimization trajectory",
        source="section 2.2",
        margin=turns,
        unit="share of epochs",
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Top eigenvalue over epochs; dotted lines are the drops of the learning rate."""
    fig = style.new_figure(style.COLUMN, 2.1)
    ax = fig.add_subplot()
    _trajectory.plot(ax, results, eigenvalue, "base")
    ax.set(xlabel="epoch", ylabel="top Hessian eigenvalue")
    swings = [_trajectory.swing(rows, eigenvalue) for rows in results.values()]
    if np.isfinite(swings).any():
        factor = 10 ** float(np.nanmean(swings))
        ax.set_title(f"before the first drop: {factor:.2f} x from epoch to epoch")
    return fig
