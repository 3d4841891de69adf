"""ToST, Figure 9a: the top Hessian eigenvalue along training, with and without ToST.

The paper's claim: ToST lowers the top eigenvalue, so the landscape is smoother. Drawn here with
the tweaks GSk, GSw and LS (LRsI is not among them yet).
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures.need import TOST, Need
from figures.tost import _trajectory
from sparsediag import plotting

NEEDS = {
    (label, seed): Need("history", tweaks=tweaks, seed=seed)
    for label, tweaks in {"sparse": (), "ToST": TOST}.items()
    for seed in range(3)
}


def draw(results: dict[tuple[str, int], Any], key: str = "eigenvalue") -> Figure:
    """Both trajectories on one axis; dotted lines are the drops of the learning rate."""
    fig = plotting.figure()
    ax = fig.add_subplot()
    for label in ("sparse", "ToST"):
        histories = [rows for (of, _), rows in results.items() if of == label]
        _trajectory.plot(ax, histories, key, label)
    names = {
        "eigenvalue": "top Hessian eigenvalue",
        "gradient_flow": "gradient norm on live weights,\nmean over layers",
    }
    ax.set_ylabel(names[key])
    ax.legend()
    return fig
