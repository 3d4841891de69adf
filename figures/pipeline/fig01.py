"""Pipeline, Figure 1: a perceptron on MNIST, pruned to a tenth of its weights and far below.

Test accuracy over density, as in Table 1; dashed lines are baselines, dotted ones what the paper
does not have, and the grey line is chance. The paper's claim: its methods do better than the
baselines, by learned masks most.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures import effect_sizes
from figures.claims import Claim
from figures.pipeline import _rows, table1
from figures.pipeline._runs import run
from figures.scales import Scale

SEEDS = table1.SEEDS
NEEDS = table1.NEEDS
OWN = ("+ ZerO", "+ Mask", "+ ZerO, Mask")
CLAIMS = (
    Claim(
        says="At 1 % of the weights, the paper's methods are on average above every baseline",
        quote="our proposed methods offer improvement over the baselines",
        source="caption",
        margin=effect_sizes.joined(
            effect_sizes.mean, *(effect_sizes.lead(kind, _rows.BASELINES, 0.01) for kind in OWN)
        ),
        paper=(66.2 + 88.9 + 89.0) / 3 - 57.0,
        room=effect_sizes.room_above(OWN, _rows.BASELINES, 0.01),
    ),
    Claim(
        says="At 1 % of the weights, a learned mask is better than ZerO",
        quote="with the learned mask having the largest impact",
        source="caption",
        margin=effect_sizes.gain("+ Mask", "+ ZerO", 0.01),
        paper=88.9 - 66.2,
        room=effect_sizes.room_above(["+ Mask"], ["+ ZerO"], 0.01),
    ),
)


def draw(results: dict[tuple[str, float, int], Any], scale: Scale) -> Figure:
    """The paper's accuracies, and ours beside them."""
    title = f"here: {scale.title(run('vanilla', 0.1))}"
    return _rows.draw(results, table1.PAPER, table1.DENSITIES, title=title, chance=11.35)
