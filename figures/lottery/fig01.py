"""Lottery, Figure 1: lottery tickets with one tweak each, compared with plain ones.

Test accuracy of ResNet-18 on CIFAR-100 over rounds 1 to 16 of a fifth each. A ticket wins (shaded)
if it reaches the accuracy of the plain dense network minus one standard deviation. The paper's
claim: each tweak helps sparse networks far more than the dense one, which skips even harm.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures import effect_sizes
from figures.claims import Claim
from figures.lottery import panels
from figures.lottery.runs import LEVELS, run
from figures.measurement import Results, history_grid
from figures.scales import Scale
from sparsediag.plotting import style

PANELS = {
    "a) skips": ("skip",),
    "b) Swish and Mish": ("Swish", "Mish"),
    "c) label smoothing": ("LS",),
    "d) rescaled initialisation": ("LRsI",),
}
TWEAKS = tuple(kind for kinds in PANELS.values() for kind in kinds)
MEASUREMENTS = history_grid(run, ("vanilla", *TWEAKS), (1, *LEVELS.values()))
# points over vanilla by sparsity in percent, 0 for dense; sections 4.2 and 4.3
PAPER = {
    "skip": {0: -0.77, 91: 1.05, 95: 1.58, 97: 2.22},
    "LS": {36: 1.37, 59: 1.54},
    "LRsI": {59: 0.53},
}
ROUNDS = {36: 2, 59: 4, 91: 11, 95: 14, 97: 16}  # sparsity in the paper -> round
QUOTES = {
    "skip": "it significantly improves the performance of sparse networks, especially at "
    "extremely high sparsity levels",
    "LS": "winning tickets at 36% and 59% sparsity perform +1.37% and +1.54% better than "
    "vanilla-LTH due to label smoothing",
    "LRsI": "winning tickets at 59% sparsity perform +0.53% better than vanilla-LTH due to "
    "layer-wise scaled initialization",
}


def _helps(kind: str, percent: int) -> Claim:
    density = LEVELS[ROUNDS[percent]]
    return Claim(
        says=f"{kind} improves a lottery ticket at {percent} % sparsity",
        quote=QUOTES[kind],
        source="section 4.2" if kind == "skip" else "section 4.3",
        margin=effect_sizes.gain(kind, "vanilla", density),
        paper=PAPER[kind][percent],
        max_gain=effect_sizes.max_gain("vanilla", density),
    )


def _sparse_more_than_dense(*kinds: str) -> effect_sizes.Margin:
    return effect_sizes.mean(
        *(
            effect_sizes.difference(
                effect_sizes.gain(kind, "vanilla", *LEVELS.values()),
                effect_sizes.gain(kind, "vanilla", 1),
            )
            for kind in kinds
        )
    )


CLAIMS = (
    Claim(
        says="Skips harm the dense network",
        quote="hurts the performance of the dense network by -0.77%",
        source="section 4.2",
        margin=effect_sizes.gain("vanilla", "skip", 1),
        paper=-PAPER["skip"][0],
    ),
    *(_helps("skip", percent) for percent in (91, 95, 97)),
    Claim(
        says="Swish and Mish help tickets more than the dense network",
        quote="the impact of smooth activation functions is marginal for dense networks",
        source="section 4.2",
        margin=_sparse_more_than_dense("Swish", "Mish"),
    ),
    *(_helps("LS", percent) for percent in (36, 59)),
    _helps("LRsI", 59),
    Claim(
        says="The five tweaks help tickets more than the dense network",
        quote="Performance gain by our techniques is more profound for sparse NN in comparison to "
        "dense NN",
        source="caption",
        margin=_sparse_more_than_dense(*TWEAKS),
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw a panel for each group of tweaks; dashed lines are dense networks."""
    trained = {kind for kind, _, _ in results}
    trained_panels = {
        title: kinds for title, kinds in PANELS.items() if trained & set(kinds)
    } or PANELS
    rows = (len(trained_panels) + 1) // 2
    fig = style.new_figure(style.PAGE, 0.5 + 2 * rows)
    axes = fig.subplots(rows, 2, sharey=True, squeeze=False).flat
    for ax, (title, kinds) in zip(axes, trained_panels.items(), strict=False):
        for kind in kinds:
            panels.shade_winning(ax, results, kind)
        with_plain = ("vanilla", *kinds)
        panels.panel(ax, results, with_plain, title=title, dense=with_plain)
    for ax in fig.axes[len(trained_panels) :]:
        ax.remove()
    for ax in fig.axes[1::2]:
        ax.set_ylabel("")
    for ax in fig.axes[:-2]:
        ax.set_xlabel("")
    panels.legend(fig, winning=True)
    return fig
