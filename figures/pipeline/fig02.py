"""Pipeline, Figure 2: VGG-16 on CIFAR-10, pruned to 10 % of its weights and far below.

Test accuracy over density, as in Table 2; dashed lines are baselines, the dotted one is a training
that the paper does not have, and the grey line is chance. The paper's claims: its methods are
better than the baselines, and learned masks help most; ToST's tweaks after pruning barely help.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures import effect_sizes
from figures.claims import Claim
from figures.measurement import Results
from figures.pipeline import accuracies, table2
from figures.pipeline.runs import run
from figures.scales import Scale

MEASUREMENTS = table2.MEASUREMENTS
CLAIMS = (
    Claim(
        says="At 0.1 % of the weights, a learned mask is better than ZerO",
        quote="with the learned mask having the largest impact",
        source="caption",
        margin=effect_sizes.gain("+ Mask", "+ ZerO", 0.001),
        paper=45.7 - 27.6,
        max_gain=effect_sizes.max_gain_over_best(["+ Mask"], ["+ ZerO"], 0.001),
    ),
    Claim(
        says="At 1 % of the weights, ToST after pruning helps, on average over the ways of pruning",
        quote="the addition of the post-pruning training optimizations seems to help when applied, "
        "but very barely",
        source="caption",
        margin=effect_sizes.mean(
            effect_sizes.gain("+ ToST", "vanilla", 0.01),
            effect_sizes.gain("+ ZerO, ToST", "+ ZerO", 0.01),
            effect_sizes.gain("+ Mask, ToST", "+ Mask", 0.01),
        ),
        paper=(0.0 + 1.0 + 2.0) / 3,
        max_gain=effect_sizes.max_gain_over_best(
            ["+ ToST", "+ ZerO, ToST", "+ Mask, ToST"], ["vanilla", "+ ZerO", "+ Mask"], 0.01
        ),
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the paper's accuracies, and ours beside them."""
    title = f"here: {scale.title(run('vanilla', 0.1, net='vgg16'))}"
    return accuracies.draw(results, table2.PAPER, table2.DENSITIES, title=title, chance=10.0)
