"""Lottery, Figure 1: tickets of the lottery with one tweak each, against the plain ones.

Test accuracy of ResNet-18 on CIFAR-100 over rounds 1 to 16 of a fifth each. A ticket wins, which
is shaded, if it reaches the plain dense net less one standard deviation. The paper's claim: each
tweak adds far more to sparse nets than to dense ones, which skips even harm.
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
PANELS = {
    "a) skips": ("skip",),
    "b) Swish and Mish": ("Swish", "Mish"),
    "c) label smoothing": ("LS",),
    "d) rescaled initialisation": ("LRsI",),
}
TWEAKS = tuple(kind for kinds in PANELS.values() for kind in kinds)
NEEDS = {
    (kind, density, seed): Need(run(kind, density, seed))
    for kind in ("vanilla", *TWEAKS)
    for density in (1, *LEVELS.values())
    for seed in range(3)
}
# points over vanilla by sparsity in per cent, 0 for dense; sections 4.2 and 4.3
PAPER = {
    "skip": {0: -0.77, 91: 1.05, 95: 1.58, 97: 2.22},
    "Swish": {0: 0.21},
    "Mish": {0: 0.24},
    "LS": {36: 1.37, 59: 1.54},
    "LRsI": {59: 0.53},
}
ROUNDS = {36: 2, 59: 4, 91: 11, 95: 14, 97: 16}  # by the paper's sparsity


def _helps(kind: str, percent: int, quote: str, source: str) -> Claim:
    density = LEVELS[ROUNDS[percent]]
    return Claim(
        says=f"{kind} improves a lottery ticket at {percent} % sparsity",
        quote=quote,
        source=source,
        margin=effect_sizes.gain(kind, "vanilla", density),
        paper=PAPER[kind][percent],
        room=effect_sizes.room("vanilla", density),
    )


def _sparse_more_than_dense(*kinds: str) -> effect_sizes.Margin:
    over = [
        effect_sizes.joined(
            effect_sizes.less,
            effect_sizes.gain(kind, "vanilla", *LEVELS.values()),
            effect_sizes.gain(kind, "vanilla", 1),
        )
        for kind in kinds
    ]
    return effect_sizes.joined(effect_sizes.mean, *over)


CLAIMS = (
    Claim(
        says="Skips harm the dense net",
        quote="hurts the performance of the dense network by -0.77%",
        source="section 4.2",
        margin=effect_sizes.gain("vanilla", "skip", 1),
        paper=-PAPER["skip"][0],
    ),
    *(
        _helps(
            "skip",
            percent,
            "it significantly improves the performance of sparse networks, especially at "
            "extremely high sparsity levels",
            "section 4.2",
        )
        for percent in (91, 95, 97)
    ),
    Claim(
        says="Swish and Mish add more to tickets than to the dense net",
        quote="the impact of smooth activation functions is marginal for dense networks",
        source="section 4.2",
        margin=_sparse_more_than_dense("Swish", "Mish"),
    ),
    *(
        _helps(
            "LS",
            percent,
            "winning tickets at 36% and 59% sparsity perform +1.37% and +1.54% better than "
            "vanilla-LTH due to label smoothing",
            "section 4.3",
        )
        for percent in (36, 59)
    ),
    _helps(
        "LRsI",
        59,
        "winning tickets at 59% sparsity perform +0.53% better than vanilla-LTH due to layer-wise "
        "scaled initialization",
        "section 4.3",
    ),
    Claim(
        says="The five tweaks add more to tickets than to the dense net",
        quote="Performance gain by our techniques is more profound for sparse NN in comparison to "
        "dense NN",
        source="caption",
        margin=_sparse_more_than_dense(*TWEAKS),
    ),
)


def draw(results: dict[tuple[str, float, int], Any], scale: Scale) -> Figure:
    """A panel a group of tweaks; dashed lines are dense nets with and without them."""
    there = {kind for kind, _, _ in results}
    panels = {title: kinds for title, kinds in PANELS.items() if there & set(kinds)} or PANELS
    rows = (len(panels) + 1) // 2
    fig = style.new_figure(style.PAGE, 0.5 + 2 * rows)
    axes = fig.subplots(rows, 2, sharey=True, squeeze=False).flat
    for ax, (title, kinds) in zip(axes, panels.items(), strict=False):
        shown = {kind: kind for kind in ("vanilla", *kinds)}
        for kind in kinds:
            _ladders.shade(ax, results, kind)
        _ladders.panel(ax, results, shown, title=title, dense=list(shown))
    for ax in fig.axes[len(panels) :]:
        ax.remove()
    for ax in fig.axes[1::2]:
        ax.set_ylabel("")
    for ax in fig.axes[:-2]:
        ax.set_xlabel("")
    _ladders.legend(fig, winning=True)
    return fig
