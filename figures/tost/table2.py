"""ToST, Table 2: ToST with five kinds of masks, on two networks and two data sets.

Test accuracy of networks with 90, 95 and 98 % sparsity, trained with and without ToST. The paper's
claims: ToST helps whatever the mask, and random masks most; of the masks, lottery tickets are best.
SynFlow prunes in 100 steps; an extra row shows what a single step costs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from figures import effect_sizes
from figures.accuracy import estimate, sparsity_column, trained_densities
from figures.claims import Claim
from figures.measurement import ALL_SEEDS, Measurement, Results
from figures.scales import Scale
from figures.tost.runs import MASKS, run
from sparsediag.plotting.tables import Cell, Table
from training.masks.synflow import Synflow

DENSITIES = (0.1, 0.05, 0.02)
BLOCKS = {  # smaller scales take the first one, since one network and data set replaces all
    ("resnet32", "cifar100"): "ResNet-32, CIFAR-100",
    ("resnet32", "cifar10"): "ResNet-32, CIFAR-10",
    ("resnet50", "cifar100"): "ResNet-50, CIFAR-100",
    ("resnet50", "cifar10"): "ResNet-50, CIFAR-10",
}
FIRST = ("resnet32", "cifar100")
# percent at 90, 95 and 98 % sparsity, without and with ToST; ToST, Table 2
PAPER = {
    FIRST: {
        "Random": ((63.13, 64.55, 19.83), (65.19, 64.61, 33.98)),
        "SNIP": ((69.31, 65.63, 55.70), (70.00, 68.46, 60.21)),
        "GraSP": ((69.24, 66.50, 58.43), (70.18, 67.20, 62.30)),
        "SynFlow": ((69.03, 65.23, 58.73), (70.25, 67.90, 61.72)),
        "LTH": ((71.11, 70.37, 69.02), (72.30, 71.99, 70.22)),
    },
    ("resnet32", "cifar10"): {
        "Random": ((89.95, 89.68, 86.13), (91.53, 91.44, 88.20)),
        "SNIP": ((92.26, 91.18, 87.78), (92.83, 92.01, 88.12)),
        "GraSP": ((92.20, 91.39, 88.70), (92.98, 92.77, 89.92)),
        "SynFlow": ((92.01, 91.67, 88.10), (93.39, 92.06, 91.82)),
        "LTH": ((93.14, 92.98, 92.22), (94.01, 93.60, 93.34)),
    },
    ("resnet50", "cifar100"): {
        "Random": ((65.67, 60.23, 28.32), (67.75, 63.60, 41.99)),
        "SNIP": ((70.43, 67.85, 60.38), (70.79, 68.06, 61.51)),
        "GraSP": ((70.53, 67.84, 63.88), (70.89, 68.09, 65.01)),
        "SynFlow": ((70.43, 67.95, 63.95), (70.86, 68.83, 65.40)),
        "LTH": ((71.89, 71.05, 70.41), (73.69, 72.20, 71.93)),
    },
    ("resnet50", "cifar10"): {
        "Random": ((85.11, 88.76, 85.32), (92.73, 90.95, 87.11)),
        "SNIP": ((91.95, 92.12, 89.26), (92.89, 92.56, 90.56)),
        "GraSP": ((92.10, 91.74, 89.97), (92.64, 92.33, 90.94)),
        "SynFlow": ((92.05, 91.83, 89.61), (92.55, 92.57, 90.27)),
        "LTH": ((93.69, 93.18, 92.79), (94.37, 94.01, 92.94)),
    },
}
DENSE = dict(zip(BLOCKS, (74.64, 94.80, 74.91, 94.90), strict=True))  # also from Table 2
ONE_STEP = "SynFlow, 1 step"
MEASUREMENTS = {
    ((*block, mask, kind), density, seed): Measurement(
        run(kind, density, seed, mask=mask, net=block[0], data=block[1])
    )
    for block in BLOCKS
    for mask, density in [("dense", 1.0), *((m, d) for m in MASKS for d in DENSITIES)]
    for kind in (("base",) if mask == "dense" else ("base", "ToST"))
    for seed in ALL_SEEDS
} | {
    ((*block, ONE_STEP, "base"), 0.02, seed): Measurement(
        replace(
            run("base", 0.02, seed, mask="SynFlow", net=block[0], data=block[1]),
            mask=Synflow(0.02, steps=1),
            on_disconnected="warn",
        )
    )
    for block in BLOCKS
    if block[0] == "resnet32"
    for seed in ALL_SEEDS
}
ROWS = ("Random", "SNIP", "GraSP", "SynFlow", ONE_STEP, "LTH")
OTHERS = [(*FIRST, mask, "base") for mask in MASKS if mask != "LTH"]
KINDS_OF_MASKS = {
    "random masks": ("Random",),
    "SNIP, GraSP and SynFlow masks": ("SNIP", "GraSP", "SynFlow"),
    "lottery tickets": ("LTH",),
}
CLAIMS = (
    *(
        Claim(
            says=f"ToST improves {description} at 98 % sparsity",
            quote="sparse mask trained with ToST stays stable in performing significantly better "
            "across all pruning methods, datasets, and network architectures",
            source="section 3.2",
            margin=effect_sizes.mean(
                *(effect_sizes.gain((*FIRST, m, "ToST"), (*FIRST, m, "base"), 0.02) for m in masks)
            ),
            paper=float(np.mean([np.subtract(*PAPER[FIRST][m][::-1])[-1] for m in masks])),
        )
        for description, masks in KINDS_OF_MASKS.items()
    ),
    Claim(
        says="At 98 % sparsity without ToST, lottery tickets are better than all other masks",
        quote="among all the pruning methods, sparse masks obtainned by LTH (Frankle & Carbin, "
        "2018) perform the best at high sparsity",
        source="section 3.2",
        margin=effect_sizes.gain_over_best((*FIRST, "LTH", "base"), OTHERS, 0.02),
        paper=69.02 - 58.73,
        max_gain=effect_sizes.max_gain_over_best([(*FIRST, "LTH", "base")], OTHERS, 0.02),
    ),
)


def table(results: Results, scale: Scale) -> Table:
    """Return a block of rows for each network and data set, which begins with its dense network."""
    densities = trained_densities(results, DENSITIES)
    blank: list[Cell] = [None] * len(densities)
    rows: list[tuple[str, list[Cell], list[Cell]]] = []
    for block, name in BLOCKS.items():
        if not any(kind[:2] == block for kind, _, _ in results):
            continue
        dense = estimate(results, (*block, "dense", "base"), 1)
        rows.append((name, [DENSE[block], *blank], [dense, *blank]))
        for mask in ROWS:
            for i, kind in enumerate(("base", "ToST")):
                here = [estimate(results, (*block, mask, kind), d) for d in densities]
                paper = blank
                if mask in MASKS:
                    paper = [PAPER[block][mask][i][DENSITIES.index(d)] for d in densities]
                if mask in MASKS or any(here):
                    rows.append((mask + " + ToST" * i, [None, *paper], [None, *here]))
    columns = ["dense", *map(sparsity_column, densities)]
    return Table.paper_and_here("test accuracy (%) by mask and sparsity", "mask", columns, rows)
