"""Lottery, Figure 9: labels smoothed by a constant (LS), or by the dense net as a teacher (KD).

Test accuracy of ResNet-18 on CIFAR-100 with all tweaks (AT+TRT) over rounds 1 to 16 of a fifth
each. The paper's claim: a teacher is little better than label smoothing.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures import effect_sizes
from figures.claims import Claim
from figures.lottery import _ladders
from figures.lottery._runs import LEVELS, run
from figures.measurement import Need
from figures.scales import Scale
from sparsediag.plotting import style

SEEDS = 1
KINDS = ("vanilla", "AT+TRT", "AT+TRT with KD")
NEEDS = {
    (kind, density, seed): Need(run(kind, density, seed))
    for kind in KINDS
    for density in (*((1,) if kind == "vanilla" else ()), *LEVELS.values())
    for seed in range(3)
}
QUOTE = "KD has marginal benefits when it replaces naive LS in TRT of our proposed LTH"
CLAIMS = (
    Claim(
        says="Distillation in the place of label smoothing improves tickets",
        quote=QUOTE,
        source="section 4.6",
        margin=effect_sizes.gain("AT+TRT with KD", "AT+TRT", *LEVELS.values()),
    ),
    Claim(
        says="The choice between the two matters less than the tweaks as a whole",
        quote=QUOTE,
        source="section 4.6",
        margin=effect_sizes.joined(
            lambda tweaks, teacher: tweaks - abs(teacher),
            effect_sizes.gain("AT+TRT", "vanilla", *LEVELS.values()),
            effect_sizes.gain("AT+TRT with KD", "AT+TRT", *LEVELS.values()),
        ),
    ),
)


def draw(results: dict[tuple[str, float, int], Any], scale: Scale) -> Figure:
    """Three curves, and the dense net as a dashed line."""
    fig = style.new_figure(style.COLUMN, 2.7)
    names = {kind: kind for kind in KINDS}
    _ladders.panel(fig.add_subplot(), results, names, dense=("vanilla",))
    _ladders.legend(fig)
    return fig
