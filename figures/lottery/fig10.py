"""Lottery, Figure 10: the test loss along the top Hessian eigenvector of the training loss.

The paper's claim: with the architecture and the training recipe tweaked, the loss rises less
around the minimum than with vanilla retraining.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures.need import TOST, Need
from sparsediag import plotting

RUNS = {"vanilla": (), "skip": ("GSk",), "Swish": ("GSw",), "LS": ("LS",), "all tweaks": TOST}
COLOURS = dict(zip(RUNS, ("sparse", "GSk", "GSw", "LS", "ToST"), strict=True))
NEEDS = {label: Need.top_curve(tweaks) for label, tweaks in RUNS.items()}


def draw(results: dict[str, Any]) -> Figure:
    """The test loss itself over the distance."""
    fig = plotting.figure()
    ax = fig.add_subplot()
    for label, result in results.items():
        colour = plotting.COLOUR_OF[COLOURS[label]]
        ax.plot(result.distance, result.loss[0], color=colour, label=label)
    ax.set(xlabel="distance along the top eigenvector", ylabel="test loss")
    ax.legend()
    return fig
