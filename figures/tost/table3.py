"""ToST, Table 3: SNIP's masks and lottery tickets of a ResNet-50 on TinyImageNet.

Test accuracy at 85, 90 and 95 % sparsity, trained plainly and with ToST. The paper's claim: ToST
helps on this larger data set too, most at 95 %. (Its caption names 90, 95 and 98 %; its columns
and its text 85, 90 and 95 %.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from figures import accuracy, effect_sizes
from figures.claims import Claim
from figures.measurement import Need
from figures.scales import Scale
from figures.tables import Table
from figures.tost._runs import run

DENSITIES = (0.15, 0.1, 0.05)
PAPER = {  # per cent; ToST, Table 3
    ("SNIP", "base"): (58.91, 56.15, 51.19),
    ("SNIP", "ToST"): (59.44, 57.19, 53.21),
    ("LTH", "base"): (60.11, 58.46, 53.19),
    ("LTH", "ToST"): (61.52, 58.96, 54.76),
}
NEEDS = {
    ((mask, kind), density, seed): Need(
        run(kind, density, seed, mask=mask, net="resnet50", data="tinyimagenet")
    )
    for mask, kind in PAPER
    for density in DENSITIES
    for seed in range(3)
}


CLAIMS = (
    *(
        Claim(
            says=f"ToST improves {named} at 95 % sparsity on TinyImageNet",
            quote="At 95% sparsity, it provides > 2% improvement for SNIP, and > 1.5% improvement "
            "for the LTH mask",
            source="section 3.2",
            margin=effect_sizes.gain((mask, "ToST"), (mask, "base"), 0.05),
            paper=PAPER[mask, "ToST"][-1] - PAPER[mask, "base"][-1],
            room=effect_sizes.room((mask, "base"), 0.05),
        )
        for mask, named in {"SNIP": "SNIP's masks", "LTH": "lottery tickets"}.items()
    ),
    Claim(
        says="ToST improves both kinds of masks, on average",
        quote="ToST provided sufficient performance boost to ResNet-50 sparse masks identified by "
        "SNIP and LTH",
        source="section 3.2",
        margin=effect_sizes.joined(
            effect_sizes.mean,
            *(effect_sizes.gain((m, "ToST"), (m, "base"), *DENSITIES) for m in ("SNIP", "LTH")),
        ),
        paper=float(
            np.mean([np.subtract(PAPER[m, "ToST"], PAPER[m, "base"]) for m in ("SNIP", "LTH")])
        ),
        room=lambda results: float(
            np.mean([effect_sizes.room((m, "base"), *DENSITIES)(results) for m in ("SNIP", "LTH")])
        ),
    ),
)


def table(results: Mapping[Any, Any], scale: Scale) -> Table:
    """A row a mask, plain and with ToST; the paper's accuracy and ours at each sparsity."""
    shares = [d for d in DENSITIES if any(d == density for _, density, _ in results)]
    heads = [f"{accuracy.sparsity(d)} %, {who}" for d in shares for who in ("paper", "here")]
    rows = [
        (
            mask if kind == "base" else f"{mask} + {kind}",
            *(
                cell
                for d in shares
                for cell in (
                    paper[DENSITIES.index(d)],
                    accuracy.estimate(results, (mask, kind), d),
                )
            ),
        )
        for (mask, kind), paper in PAPER.items()
    ]
    return Table("test accuracy (%) by mask and sparsity", ("mask", *heads), tuple(rows))
