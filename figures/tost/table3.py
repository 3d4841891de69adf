"""ToST, Table 3: SNIP masks and lottery tickets of a ResNet-50 on TinyImageNet.

Test accuracy at 85, 90 and 95 % sparsity, trained with and without ToST. The paper's claim: ToST
also helps on this larger data set, most at 95 %. (The caption of the paper's table says 90, 95 and
98 %; its columns and its text say 85, 90 and 95 %.)
"""

from __future__ import annotations

import numpy as np

from figures import accuracy, effect_sizes
from figures.claims import Claim
from figures.measurement import ALL_SEEDS, Measurement, Results
from figures.scales import Scale
from figures.tost.runs import run
from sparsediag.plotting.tables import Table

DENSITIES = (0.15, 0.1, 0.05)
PAPER = {  # percent; ToST, Table 3
    ("SNIP", "base"): (58.91, 56.15, 51.19),
    ("SNIP", "ToST"): (59.44, 57.19, 53.21),
    ("LTH", "base"): (60.11, 58.46, 53.19),
    ("LTH", "ToST"): (61.52, 58.96, 54.76),
}
MASKS = ("SNIP", "LTH")
MEASUREMENTS = {
    ((mask, kind), density, seed): Measurement(
        run(kind, density, seed, mask=mask, net="resnet50", data="tinyimagenet")
    )
    for mask, kind in PAPER
    for density in DENSITIES
    for seed in ALL_SEEDS
}
CLAIMS = (
    Claim(
        says="ToST improves SNIP masks and tickets of ResNet-50 on TinyImageNet",
        quote="ToST provided sufficient performance boost to ResNet-50 sparse masks identified by "
        "SNIP and LTH",
        source="section 3.2",
        margin=effect_sizes.mean(
            *(effect_sizes.gain((mask, "ToST"), (mask, "base"), *DENSITIES) for mask in MASKS)
        ),
        paper=float(np.mean([np.subtract(PAPER[m, "ToST"], PAPER[m, "base"]) for m in MASKS])),
    ),
)


def table(results: Results, scale: Scale) -> Table:
    """Return a row for each mask, without and with ToST."""
    title = "test accuracy (%) by mask and sparsity"
    return accuracy.comparison(results, PAPER, DENSITIES, title=title, head="mask")
