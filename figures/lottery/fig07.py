"""Lottery, Figure 7: all tweaks together (AT+TRT) on TinyImageNet.

Test accuracy of ResNet-18 over rounds 1 to 16 of a fifth each; the paper does not name the network
of this figure, so it is that of its other figures. Its claim: the tweaks help here as on CIFAR.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures.lottery import panels
from figures.lottery.runs import all_levels, run
from figures.measurement import Results
from figures.scales import Scale

KINDS = ("vanilla", "AT+TRT")
MEASUREMENTS = all_levels(KINDS, data="tinyimagenet")


def draw(results: Results, scale: Scale) -> Figure:
    """Draw two curves, and the dense network as a dashed line."""
    return panels.single_panel(results, KINDS, title=scale.title(run(data="tinyimagenet")))
