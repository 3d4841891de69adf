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
        says="At 1 % of VGG-16, ToST after pruning helps",
        quote="the addition of the post-pruning training optimizations seems to help when applied, "
        "but very barely",
        source="caption",
        margin=effect_sizes.mean(
            effect_sizes.gain("+ ToST", "vanilla", 0.01),
            effect_sizes.gain("+ ZerO, ToST", "+ ZerO", 0.01),
            effect_sizes.gain("+ Mask, ToST", "+ Mask", 0.01),
        ),
        paper=(0.0 + 1.0 + 2.0) / 3,
        at_least=0.5,
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the paper's accuracies, and ours beside them."""
    title = f"here: {scale.title(run('vanilla', 0.1, net='vgg16'))}"
    return accuracies.draw(results, table2.PAPER, table2.DENSITIES, title=title, chance=10.0)
