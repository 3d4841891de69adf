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
ROUNDS = {59: 4, 91: 11, 95: 14, 97: 16}  # sparsity in the paper -> round


def sparse_more_than_dense(kind: str) -> effect_sizes.Margin:
    """Return how much more a tweak helps tickets than the dense network."""
    return effect_sizes.difference(
        effect_sizes.gain(kind, "vanilla", *LEVELS.values()),
        effect_sizes.gain(kind, "vanilla", 1),
    )


CLAIMS = (
    Claim(
        says="Skips improve lottery tickets at 91 to 97 % sparsity",
        quote="it significantly improves the performance of sparse networks, especially at "
        "extremely high sparsity levels",
        source="section 4.2",
        margin=effect_sizes.gain("skip", "vanilla", *(LEVELS[ROUNDS[p]] for p in (91, 95, 97))),
        paper=(1.05 + 1.58 + 2.22) / 3,
    ),
    Claim(
        says="LS and LRsI improve lottery tickets at 59 % sparsity",
        quote="winning tickets at 59% sparsity perform +0.53% better than vanilla-LTH due to "
        "layer-wise scaled initialization",
        source="section 4.3",
        margin=effect_sizes.mean(
            *(effect_sizes.gain(kind, "vanilla", LEVELS[ROUNDS[59]]) for kind in ("LS", "LRsI"))
        ),
        paper=(1.54 + 0.53) / 2,
    ),
    Claim(
        says="The five tweaks help tickets more than the dense network",
        quote="Performance gain by our techniques is more profound for sparse NN in comparison to "
        "dense NN",
        source="caption",
        margin=effect_sizes.mean(*map(sparse_more_than_dense, TWEAKS)),
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
