"""ToST, Figure 8: the test loss along the top Hessian eigenvector of the training loss.

The paper's claim: around the minimum that each tweak finds, the loss rises less.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures.need import TOST, Need
from sparsediag import plotting

RUNS = {"sparse": (), "GSk": ("GSk",), "GSw": ("GSw",), "LS": ("LS",), "ToST": TOST}
NEEDS = {label: Need.top_curve(tweaks) for label, tweaks in RUNS.items()}


def draw(results: dict[str, Any]) -> Figure:
    """Change of the test loss over the distance."""
    fig = plotting.figure()
    ax = fig.add_subplot()
    for label, result in results.items():
        change = result.loss[0] - result.centre
        ax.plot(result.distance, change, color=plotting.COLOUR_OF[label], label=label)
    ax.set(xlabel="distance along the top eigenvector", ylabel="change of the test loss")
    ax.legend()
    return fig
