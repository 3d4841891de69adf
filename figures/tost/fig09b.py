"""ToST, Figure 9b: average gradient flow of the live weights during training.

ResNet-18 on CIFAR-100, a lottery ticket with 90 % sparsity. The paper's claim: ToST gives a
healthier gradient flow, which is understood here as a larger one. The gradient is that of the plain
cross-entropy after each epoch. LRsI changes the norm of the weights, and with batch norm that alone
changes the gradient. So the lower panel shows the gradient flow times the norm. A network that fits
its data less well also has larger gradients, and label smoothing has that effect.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures.claims import Claim
from figures.histories import Row
from figures.measurement import Results
from figures.scales import Scale
from figures.tost import trajectories

MEASUREMENTS = trajectories.MEASUREMENTS


def flow(row: Row) -> float:
    """Return the gradient norm on the live weights of a layer, its mean over layers."""
    return float(row["gradient_flow"])


def scaled_flow(row: Row) -> float:
    """Return the gradient flow times the norm of the weights."""
    return flow(row) * float(row["weight_norm"])


CLAIMS = (
    Claim(
        says="ToST increases the gradient flow during training",
        quote="ToST facilitates healthier gradient flow during the training of sparse neural "
        "networks",
        source="section 4.4",
        margin=trajectories.log_ratio(flow, "ToST", "base"),
        unit="ratio (log10)",
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the gradient flow, alone and scaled; dotted lines are the drops of the rate."""
    return trajectories.compare(results, {"gradient flow |g|": flow, "|g| |w|": scaled_flow})
