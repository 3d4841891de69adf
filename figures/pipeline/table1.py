"""Pipeline, Table 1: a perceptron on MNIST, pruned to 10 % of its weights and far below.

Test accuracy by pruning method. The paper's claims: with ZerO initialisation or learned masks
before pruning, 3 % of the weights are as good as the whole network; below that only learned masks
are, and the two do not combine well. Training-free is the best of four masks at initialisation,
with SynFlow in one step. Extra rows show these four, SynFlow with 100 steps, and ZerO with a
learned mask without a penalty on its size. Vanilla and the rows with a plus train twice.
"""

from __future__ import annotations

from figures import effect_sizes
from figures.claims import Claim
from figures.measurement import Results
from figures.pipeline import accuracies
from figures.pipeline.runs import MANY_STEPS, NO_SIZE, TRAINING_FREE
from figures.scales import Scale
from sparsediag.plotting.tables import Table

DENSITIES = (0.1, 0.032, 0.01, 0.0032)
PAPER = {  # percent; Dogariu, Table 1
    accuracies.BEST: (97.3, 93.2, 57.0, 11.4),
    "vanilla": (88.9, 75.2, 11.4, 11.4),
    "RigL": (97.1, 92.8, 40.1, 11.4),
    "+ ZerO": (97.2, 97.1, 66.2, 17.9),
    "+ Mask": (97.0, 96.5, 88.9, 73.5),
    "+ ZerO, Mask": (97.2, 87.8, 89.0, 65.0),
}
MEASUREMENTS = accuracies.measurements(PAPER, DENSITIES, (MANY_STEPS, NO_SIZE), net="mlp")
CLAIMS = (
    Claim(
        says="At 1 % of a perceptron, ZerO with a learned mask beats all baselines",
        quote="our combined approach does significantly better than the baselines when the models "
        "become very sparse",
        source="section 4.2",
        margin=effect_sizes.gain_over_best("+ ZerO, Mask", accuracies.BASELINES, 0.01),
        paper=89.0 - 57.0,
        max_gain=effect_sizes.max_gain_over_best(["+ ZerO, Mask"], accuracies.BASELINES, 0.01),
    ),
    Claim(
        says="At 3.2 % of a perceptron, ZerO beats training-free masks and RigL",
        quote="we are able to retain full performance with only 3% of the parameters unpruned, "
        "which is better than both",
        source="section 4.2",
        margin=effect_sizes.gain_over_best("+ ZerO", (*TRAINING_FREE, "RigL"), 0.032),
        paper=97.1 - 93.2,
        max_gain=effect_sizes.max_gain_over_best(["+ ZerO"], (*TRAINING_FREE, "RigL"), 0.032),
    ),
    Claim(
        says="At 3.2 % of a perceptron, ZerO and a learned mask do not combine",
        quote="the ZerO initialization and learned masks don't play well with each other",
        source="section 4.2",
        margin=effect_sizes.weakest(
            *(effect_sizes.gain(kind, "+ ZerO, Mask", 0.032) for kind in ("+ ZerO", "+ Mask"))
        ),
        paper=96.5 - 87.8,
        max_gain=effect_sizes.max_gain("+ ZerO, Mask", 0.032),
    ),
)


def table(results: Results, scale: Scale) -> Table:
    """Return a row for each training, with the paper's accuracy and ours at each density."""
    return accuracies.table(results, PAPER, DENSITIES)
