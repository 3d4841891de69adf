"""Lottery, Figure A13: all tweaks together (AT+TRT) on one-shot masks.

Test accuracy of ResNet-18 on CIFAR-100 with the largest weights of the dense network, at the
sparsities of rounds 1 to 16. The paper's claim: the tweaks do not need iterative pruning.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures import effect_sizes
from figures.claims import Claim
from figures.lottery import panels
from figures.lottery.runs import LEVELS, all_levels
from figures.measurement import Results
from figures.scales import Scale

KINDS = ("vanilla", "AT+TRT")
MEASUREMENTS = all_levels(KINDS, oneshot=True)
CLAIMS = (
    Claim(
        says="AT+TRT improves networks with one-shot masks",
        quote="our techniques still perform significantly better than vanilla-LTH when IMP is "
        "replaced with OMP",
        source="section A1.3",
        margin=effect_sizes.gain("AT+TRT", "vanilla", *LEVELS.values()),
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw two curves, and the dense network as a dashed line."""
    return panels.single_panel(results, KINDS, title="one-shot magnitude pruning")
