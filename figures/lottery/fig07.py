"""Lottery, Figure 7: all tweaks together (AT+TRT) on TinyImageNet.

Test accuracy of ResNet-18 over rounds 1 to 16 of a fifth each; the paper does not name the network
of this figure, so it is that of its other figures. Its claim: the tweaks help here as on CIFAR.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures import effect_sizes
from figures.claims import Claim
from figures.lottery import panels
from figures.lottery.runs import LEVELS, all_levels, run
from figures.measurement import Results
from figures.scales import Scale

KINDS = ("vanilla", "AT+TRT")
MEASUREMENTS = all_levels(KINDS, data="tinyimagenet")
CLAIMS = (
    Claim(
        says="AT+TRT improves lottery tickets on TinyImageNet, on average over sparsities",
        quote="our proposal out-performance prevails across all model architecture and datasets",
        source="section 4.4",
        margin=effect_sizes.gain("AT+TRT", "vanilla", *LEVELS.values()),
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw two curves, and the dense network as a dashed line."""
    return panels.single_panel(results, KINDS, title=scale.title(run(data="tinyimagenet")))
