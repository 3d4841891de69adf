"""ToST, Figure 9a: the top Hessian eigenvalue along training, with and without ToST.

ResNet-18 on CIFAR-100, a lottery ticket of 90 % sparsity. The paper's claim: ToST lowers the top
eigenvalue, so the landscape is smoother. LRsI changes the length of the weights, and under batch
norm by that alone the eigenvalue; so below, it is multiplied by the square of that length.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures.claims import Claim
from figures.scales import Scale
from figures.tost import _trajectory
from figures.tost._trajectory import Results, Row
from figures.tost.fig02 import eigenvalue

NEEDS = _trajectory.NEEDS
LOWER = (
    "Higher value of top eigenvalue indicate poorer quality of loss landscape and difficult "
    "optimization"
)


def scaled(row: Row) -> float:
    """The top eigenvalue times the squared length of the weights."""
    return eigenvalue(row) * float(row["weight_norm"]) ** 2


def calmer(results: Results) -> list[float]:
    """Return how much less the eigenvalue changes from epoch to epoch with ToST; one a seed."""
    plain, tost = (_trajectory.of(results, kind) for kind in ("base", "ToST"))
    swings = [
        [_trajectory.swing(rows, eigenvalue) for rows in (plain[seed], tost[seed])]
        for seed in sorted(set(plain) & set(tost))
    ]
    return [a - b for a, b in swings]


CLAIMS = (
    Claim(
        says="ToST lowers the top Hessian eigenvalue along training",
        quote=LOWER,
        source="section 4.4",
        margin=lambda results: _trajectory.below(results, eigenvalue, "ToST", "base"),
        unit="ratio (log10)",
    ),
    Claim(
        says="ToST lowers the top eigenvalue beyond what the length of the weights does: times "
        "their squared norm",
        quote=LOWER,
        source="section 4.4",
        margin=lambda results: _trajectory.below(results, scaled, "ToST", "base"),
        unit="ratio (log10)",
    ),
    Claim(
        says="Before the first drop the top eigenvalue changes less from epoch to epoch with ToST",
        quote="our methods substantially reduce training instability",
        source="section 1",
        margin=calmer,
        unit="ratio (log10)",
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Both trajectories, raw and scaled; dotted lines are the drops of the learning rate."""
    panels = {"top eigenvalue λ": eigenvalue, "λ |w|²": scaled}
    return _trajectory.compared(results, panels)
