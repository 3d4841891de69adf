"""ToST, Figure 2: the top Hessian eigenvalue while a plain sparse net trains.

The paper's claim: sparse training follows a highly chaotic trajectory.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures.need import Need
from figures.tost import _trajectory
from sparsediag import plotting

NEEDS = {seed: Need("history", seed=seed) for seed in range(3)}


def draw(results: dict[int, Any]) -> Figure:
    """Top eigenvalue over epochs; dotted lines are the drops of the learning rate."""
    fig = plotting.figure()
    ax = fig.add_subplot()
    _trajectory.plot(ax, list(results.values()), "eigenvalue", "sparse")
    ax.set_ylabel("top Hessian eigenvalue")
    return fig
