"""Pipeline, Table 1: a perceptron on MNIST, pruned to a tenth of its weights and far below.

Test accuracy by how the net is pruned. The paper's claims: ZerO initialisation and learned masks
before the cut keep 3 % of the weights as good as the whole net; below that only learned masks do,
and the two do not combine. Training-free is the best of four masks at the initialisation, with
SynFlow in one step; rows of their own tell them apart, SynFlow in 100 steps, and ZerO with a
learned mask that is not pressed to be small. Vanilla and the rows with a plus train twice.
"""

from __future__ import annotations

from typing import Any

from figures import effect_sizes
from figures.claims import Claim
from figures.pipeline import _rows
from figures.pipeline._runs import FREE, MANY_STEPS, NO_SIZE
from figures.scales import Scale
from figures.tables import Table

SEEDS = 1
DENSITIES = (0.1, 0.032, 0.01, 0.0032)
PAPER = {  # per cent; Dogariu, Table 1
    _rows.BEST: (97.3, 93.2, 57.0, 11.4),
    "vanilla": (88.9, 75.2, 11.4, 11.4),
    "RigL": (97.1, 92.8, 40.1, 11.4),
    "+ ZerO": (97.2, 97.1, 66.2, 17.9),
    "+ Mask": (97.0, 96.5, 88.9, 73.5),
    "+ ZerO, Mask": (97.2, 87.8, 89.0, 65.0),
}
CLOSE = 2.0  # points within which two nets count as the same
NEEDS = _rows.needs(PAPER, DENSITIES, (MANY_STEPS, NO_SIZE), net="mlp")
CLAIMS = (
    Claim(
        says="At 1 % of the weights, ZerO with a learned mask beats every baseline",
        quote="our combined approach does significantly better than the baselines when the models "
        "become very sparse",
        source="section 4.2",
        margin=effect_sizes.lead("+ ZerO, Mask", _rows.BASELINES, 0.01),
        paper=89.0 - 57.0,
        room=effect_sizes.room_above(["+ ZerO, Mask"], _rows.BASELINES, 0.01),
    ),
    Claim(
        says="At 3.2 % of the weights, ZerO beats training-free masks and RigL",
        quote="we are able to retain full performance with only 3% of the parameters unpruned, "
        "which is better than both",
        source="section 4.2",
        margin=effect_sizes.lead("+ ZerO", (*FREE, "RigL"), 0.032),
        paper=97.1 - 93.2,
        room=effect_sizes.room_above(["+ ZerO"], (*FREE, "RigL"), 0.032),
    ),
    Claim(
        says="At 3.2 % of the weights, ZerO with a learned mask does worse than either alone",
        quote="the ZerO initialization and learned masks don't play well with each other",
        source="section 4.2",
        margin=effect_sizes.joined(
            min, *(effect_sizes.gain(kind, "+ ZerO, Mask", 0.032) for kind in ("+ ZerO", "+ Mask"))
        ),
        paper=96.5 - 87.8,
        room=effect_sizes.room("+ ZerO, Mask", 0.032),
    ),
    Claim(
        says=f"At 1 % of the weights, ZerO with a mask that nothing presses to be small is within "
        f"{CLOSE:.0f} points of ZerO alone",
        quote="training no longer collapses, but instead the learned mask is all 1's and we "
        "recover the same pruned performance",
        source="section 5",
        margin=effect_sizes.joined(
            lambda gap: CLOSE - abs(gap), effect_sizes.gain(NO_SIZE, "+ ZerO", 0.01)
        ),
    ),
)


def table(results: dict[tuple[str, float, int], Any], scale: Scale) -> Table:
    """A row a training; the paper's accuracy and ours at each density."""
    return _rows.table(results, PAPER, DENSITIES)
