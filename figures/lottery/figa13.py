"""Lottery, Figure A13: all tweaks together (AT+TRT) on masks of one cut.

Test accuracy of ResNet-18 on CIFAR-100 with the largest weights of the dense net at the sparsities
of rounds 1 to 16. The paper's claim: the tweaks do not need iterative pruning.
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
KINDS = ("vanilla", "AT+TRT")
NEEDS = {
    (kind, density, seed): Need(run(kind, density, seed, oneshot=True))
    for kind in KINDS
    for density in (*((1,) if kind == "vanilla" else ()), *LEVELS.values())
    for seed in range(3)
}
QUOTE = (
    "our techniques still perform significantly better than vanilla-LTH when IMP is replaced with "
    "OMP"
)
CLAIMS = (
    Claim(
        says="AT+TRT improves nets with one-shot masks, on average over sparsities",
        quote=QUOTE,
        source="section A1.3",
        margin=effect_sizes.gain("AT+TRT", "vanilla", *LEVELS.values()),
    ),
)


def draw(results: dict[tuple[str, float, int], Any], scale: Scale) -> Figure:
    """Two curves, and the dense net as a dashed line."""
    fig = style.new_figure(style.COLUMN, 2.6)
    kinds = {kind: kind for kind in KINDS}
    title = "one-shot magnitude pruning"
    _ladders.panel(fig.add_subplot(), results, kinds, title=title, dense=("vanilla",))
    _ladders.legend(fig)
    return fig
