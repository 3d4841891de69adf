"""ToST, Figure 9a: the top Hessian eigenvalue during training, with and without ToST.

ResNet-18 on CIFAR-100, a lottery ticket with 90 % sparsity. The paper's claim: ToST lowers the top
eigenvalue, so the landscape is smoother. LRsI changes the norm of the weights, and with batch norm
that alone changes the eigenvalue. So the lower panel shows the eigenvalue times the squared norm.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures.claims import Claim
from figures.histories import eigenvalue, scaled_eigenvalue
from figures.measurement import Results
from figures.scales import Scale
from figures.tost import trajectories

MEASUREMENTS = trajectories.MEASUREMENTS
LOWER = (
    "Higher value of top eigenvalue indicate poorer quality of loss landscape and difficult "
    "optimization"
)


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
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the eigenvalue, alone and scaled; dotted lines are the drops of the learning rate."""
    panels = {"top eigenvalue λ": eigenvalue, "λ |w|²": scaled_eigenvalue}
    return trajectories.compare(results, panels)
