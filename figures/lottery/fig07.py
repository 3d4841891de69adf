"""Lottery, Figure 7: all tweaks together (AT+TRT) on TinyImageNet.

Test accuracy of ResNet-18 over rounds 1 to 16 of a fifth each; the paper does not name the net of
this figure, so it is the one of its other figures. Its claim: the tweaks help here as on CIFAR.
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
    (kind, density, seed): Need(run(kind, density, seed, data="tinyimagenet"))
    for kind in KINDS
    for density in (*((1,) if kind == "vanilla" else ()), *LEVELS.values())
    for seed in range(3)
}
CLAIMS = (
    Claim(
        says="AT+TRT improves lottery tickets on TinyImageNet, on average over sparsities",
        quote="our proposal out-performance prevails across all model architecture and datasets",
        source="section 4.4",
        margin=effect_sizes.gain("AT+TRT", "vanilla", *LEVELS.values()),
    ),
)


def draw(results: dict[tuple[str, float, int], Any], scale: Scale) -> Figure:
    """Two curves, and the dense net as a dashed line."""
    fig = style.new_figure(style.COLUMN, 2.6)
    title = scale.title(run(data="tinyimagenet"))
    kinds = {kind: kind for kind in KINDS}
    _ladders.panel(fig.add_subplot(), results, kinds, title=title, dense=("vanilla",))
    _ladders.legend(fig)
    return fig
