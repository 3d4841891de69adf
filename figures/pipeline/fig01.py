"""Pipeline, Figure 1: a perceptron on MNIST, pruned to 10 % of its weights and far below.

Test accuracy over density, as in Table 1; dashed lines are baselines, dotted ones are trainings
that the paper does not have, and the grey line is chance. The paper's claim: its methods are better
than the baselines, and learned masks help most.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures import effect_sizes
from figures.claims import Claim
from figures.measurement import Results
from figures.pipeline import accuracies, table1
from figures.pipeline.runs import run
from figures.scales import Scale

MEASUREMENTS = table1.MEASUREMENTS
CLAIMS = (
    Claim(
        says="At 1 % of a perceptron, a learned mask is better than ZerO",
        quote="with the learned mask having the largest impact",
        source="caption",
        margin=effect_sizes.gain("+ Mask", "+ ZerO", 0.01),
        paper=88.9 - 66.2,
        max_gain=effect_sizes.max_gain_over_best(["+ Mask"], ["+ ZerO"], 0.01),
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the paper's accuracies, and ours beside them."""
    title = f"here: {scale.title(run('vanilla', 0.1))}"
    return accuracies.draw(results, table1.PAPER, table1.DENSITIES, title=title, chance=11.35)
