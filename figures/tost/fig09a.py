"""ToST, Figure 9a: the top Hessian eigenvalue during training, with and without ToST.

ResNet-18 on CIFAR-100, a lottery ticket with 90 % sparsity. The paper's claim: ToST lowers the top
eigenvalue, so the landscape is smoother. LRsI changes the norm of the weights, and with batch norm
that alone changes the eigenvalue. So the lower panel shows the eigenvalue times the squared norm.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures.claims import Claim
from figures.effect_sizes import seed_differences
from figures.histories import eigenvalue, scaled_eigenvalue
from figures.measurement import Results, by_seed
from figures.scales import Scale
from figures.tost import trajectories

MEASUREMENTS = trajectories.MEASUREMENTS
LOWER = (
    "Higher value of top eigenvalue indicate poorer quality of loss landscape and difficult "
    "optimization"
)


def calmer(results: Results) -> list[float]:
    """Return how much less the eigenvalue changes from epoch to epoch with ToST, by seed."""
    plain, tost = (
        {
            seed: trajectories.mean_step(history, eigenvalue)
            for seed, history in by_seed(results, kind, trajectories.DENSITY).items()
        }
        for kind in ("base", "ToST")
    )
    return seed_differences(plain, tost)


CLAIMS = (
    Claim(
        says="ToST lowers the top Hessian eigenvalue during training",
        quote=LOWER,
        source="section 4.4",
        margin=trajectories.log_ratio(eigenvalue, "base", "ToST"),
        unit="ratio (log10)",
    ),
    Claim(
        says="ToST lowers the top eigenvalue times the squared norm of the weights",
        quote=LOWER,
        source="section 4.4",
        margin=trajectories.log_ratio(scaled_eigenvalue, "base", "ToST"),
        unit="ratio (log10)",
    ),
    Claim(
        says="Before the first drop of the learning rate, the top eigenvalue changes less from "
        "epoch to epoch with ToST",
        quote="our methods substantially reduce training instability",
        source="section 1",
        margin=calmer,
        unit="ratio (log10)",
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the eigenvalue, alone and scaled; dotted lines are the drops of the learning rate."""
    panels = {"top eigenvalue λ": eigenvalue, "λ |w|²": scaled_eigenvalue}
    return trajectories.compare(results, panels)
