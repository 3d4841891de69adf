"""ToST, Figure 9b: average gradient flow of the live weights along training.

ResNet-18 on CIFAR-100, a lottery ticket of 90 % sparsity. The paper's claim: ToST makes for a
healthier gradient flow, which is taken here as more of it. The gradient is that of the plain
cross-entropy after each epoch. LRsI changes the length of the weights, and under batch norm by that
alone the flow; so below, it is multiplied by that length. A net that fits its data less well has
more gradient left, too, and label smoothing makes for that.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures.claims import Claim
from figures.scales import Scale
from figures.tost import _trajectory
from figures.tost._trajectory import Results, Row

NEEDS = _trajectory.NEEDS
QUOTE = "ToST facilitates healthier gradient flow during the training of sparse neural networks"


def flow(row: Row) -> float:
    """Gradient norm on the live weights of a layer, mean over layers."""
    return float(row["gradient_flow"])


def scaled(row: Row) -> float:
    """The gradient flow times the length of the weights."""
    return flow(row) * float(row["weight_norm"])


CLAIMS = (
    Claim(
        says="ToST increases the gradient flow along training",
        quote=QUOTE,
        source="section 4.4",
        margin=lambda results: _trajectory.below(results, flow, "base", "ToST"),
        unit="ratio (log10)",
    ),
    Claim(
        says="ToST increases the gradient flow beyond what the length of the weights does: times "
        "their norm",
        quote=QUOTE,
        source="section 4.4",
        margin=lambda results: _trajectory.below(results, scaled, "base", "ToST"),
        unit="ratio (log10)",
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Both trajectories, raw and scaled; dotted lines are the drops of the learning rate."""
    return _trajectory.compared(results, {"gradient flow |g|": flow, "|g| |w|": scaled})
