"""ToST, Figure 9a: the top Hessian eigenvalue along training, with and without ToST.

The paper's claim: ToST lowers the top eigenvalue, so the landscape is smoother. LRsI
changes the length of the weights, and by that alone the eigenvalue.
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


NAMES = {
    "eigenvalue": "top Hessian eigenvalue",
    "gradient_flow": "gradient norm on live weights,\nmean over layers",
}


def of(label: str, results: dict[tuple[str, int], Any]) -> list[_trajectory.Rows]:
    """The histories of one kind of training."""
    return [rows for (kind, _), rows in results.items() if kind == label]


def draw(results: dict[tuple[str, int], Any], key: str = "eigenvalue") -> Figure:
    """Both trajectories on one axis; dotted lines are the drops of the learning rate."""
    fig = plotting.figure()
    ax = fig.add_subplot()
    for label in ("sparse", "ToST"):
        _trajectory.plot(ax, of(label, results), key, label)
    ax.set_ylabel(NAMES[key])
    ax.legend()
    return fig


def markdown(results: dict[tuple[str, int], Any], key: str = "eigenvalue") -> str:
    """Geometric means over the seeds at a few epochs."""
    means = {
        label: _trajectory.geometric_mean(_trajectory.over_epochs(of(label, results), key))
        for label in ("sparse", "ToST")
    }
    last = len(means["sparse"])
    epochs = sorted({1, last // 6, last // 2, last} - {0})
    lines = [("epoch", *map(str, epochs)), ("---",) * (1 + len(epochs))]
    lines += [(label, *(f"{m[e - 1]:.3g}" for e in epochs)) for label, m in means.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
