"""Pipeline, Table 2: VGG-16 on CIFAR-10, pruned to 10 % of its weights and far below.

Test accuracy by pruning method and later training. The paper's claims: with ZerO initialisation or
learned masks before pruning, networks still learn at densities where plain magnitude pruning fails;
ToST's tweaks after pruning help little; all together are worse. Training-free is the best of four
masks at initialisation, with SynFlow in one step. Extra rows show these four, and SynFlow with 100
steps. Vanilla and the rows with a plus train twice.
"""

from __future__ import annotations

from figures import effect_sizes
from figures.claims import Claim
from figures.measurement import Results
from figures.pipeline import accuracies
from figures.pipeline.runs import MANY_STEPS
from figures.scales import Scale
from sparsediag.plotting.tables import Table

DENSITIES = (0.1, 0.032, 0.01, 0.0032, 0.001)
PAPER = {  # percent; Dogariu, Table 2
    accuracies.BEST: (87.3, 77.7, 75.8, 55.2, 39.7),
    "vanilla": (87.1, 34.0, 10.0, 10.0, 10.0),
    "RigL": (86.5, 82.4, 64.2, 44.7, 29.5),
    "+ ZerO": (87.1, 86.7, 82.1, 57.4, 27.6),
    "+ Mask": (87.5, 86.0, 81.1, 59.1, 45.7),
    "+ ToST": (87.2, 39.1, 10.0, 10.0, 10.0),
    "+ ZerO, ToST": (86.9, 86.8, 83.1, 59.4, 27.0),
    "+ Mask, ToST": (87.1, 86.0, 83.1, 60.1, 42.2),
    "+ All": (86.8, 86.2, 72.4, 39.6, 22.8),
}
MEASUREMENTS = accuracies.measurements(PAPER, DENSITIES, (MANY_STEPS,), net="vgg16")
CLAIMS = (
    Claim(
        says="At 1 % of VGG-16, a learned mask with ToST beats all baselines",
        quote="Our combined methodology appears to beat the well-established previous methods and "
        "also a fairly new state of the art in very sparse settings",
        source="section 5",
        margin=effect_sizes.gain_over_best("+ Mask, ToST", accuracies.BASELINES, 0.01),
        paper=83.1 - 75.8,
        max_gain=effect_sizes.max_gain_over_best(["+ Mask, ToST"], accuracies.BASELINES, 0.01),
    ),
    Claim(
        says="At 1 % of VGG-16, ZerO and a learned mask each help more than ToST",
        quote="the ZerO initialization and learned masks seem to have the largest effects on "
        "pruned accuracy",
        source="caption",
        margin=effect_sizes.weakest(
            *(effect_sizes.gain_over_best(kind, ("+ ToST",), 0.01) for kind in ("+ ZerO", "+ Mask"))
        ),
        paper=81.1 - 10.0,
        max_gain=effect_sizes.max_gain_over_best(["+ ZerO", "+ Mask"], ["+ ToST"], 0.01),
    ),
)


def table(results: Results, scale: Scale) -> Table:
    """Return a row for each training, with the paper's accuracy and ours at each density."""
    return accuracies.table(results, PAPER, DENSITIES)
