"""ToST, Figure 9b: average gradient flow of the live weights along training.

The paper's claim: ToST makes for a healthier gradient flow. The gradient is that of the plain
cross-entropy after each epoch; LRsI changes the length of the weights, and by that alone the flow.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures.tost import fig09a

NEEDS = fig09a.NEEDS


def draw(results: dict[tuple[str, int], Any]) -> Figure:
    """Both trajectories on one axis; dotted lines are the drops of the learning rate."""
    return fig09a.draw(results, key="gradient_flow")


def markdown(results: dict[tuple[str, int], Any]) -> str:
    """Geometric means over the seeds at a few epochs."""
    return fig09a.markdown(results, key="gradient_flow")
