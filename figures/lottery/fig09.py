"""Lottery, Figure 9: label smoothing (LS), or distillation from the dense network (KD).

Test accuracy of ResNet-18 on CIFAR-100 with all tweaks (AT+TRT) over rounds 1 to 16 of a fifth
each. The paper's claim: distillation is only slightly better than label smoothing.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures import effect_sizes
from figures.claims import Claim
from figures.lottery import panels
from figures.lottery.runs import LEVELS, all_levels
from figures.measurement import Results
from figures.scales import Scale

KINDS = ("vanilla", "AT+TRT", "AT+TRT with KD")
MEASUREMENTS = all_levels(KINDS)
CLAIMS = (
    Claim(
        says="Distillation in place of label smoothing improves tickets",
        quote="KD has marginal benefits when it replaces naive LS in TRT of our proposed LTH",
        source="section 4.6",
        margin=effect_sizes.gain("AT+TRT with KD", "AT+TRT", *LEVELS.values()),
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw three curves, and the dense network as a dashed line."""
    return panels.single_panel(results, KINDS)
