"""ToST, Table 5: what ghost skips and soft neurons do for dense nets and for sparse ones.

Change of the test accuracy of ResNet-18 on CIFAR-100, dense and as lottery tickets of three
sparsities. The paper's claims: both tweaks help sparse nets more than the dense one, the more the
sparser; more skips even harm the dense net.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from figures import accuracy, effect_sizes
from figures.claims import Claim
from figures.estimate import Estimate
from figures.measurement import Need
from figures.scales import Scale
from figures.tables import Table
from figures.tost._runs import run

DENSITIES = (1.0, 0.8, 0.25, 0.05)
PAPER = {"GSk": (-0.77, 0.03, 0.56, 2.15), "GSw": (0.11, 0.29, 0.24, 1.28)}  # ToST, Table 5
NEEDS = {
    (kind, density, seed): Need(run(kind, density, seed))
    for kind in ("base", *PAPER)
    for density in DENSITIES
    for seed in range(3)
}


def more(kind: str, sparse: float, than: float) -> effect_sizes.Margin:
    """Return how much more a tweak adds at one density than at another, a number a seed."""
    at, other = (effect_sizes.gain(kind, "base", density) for density in (sparse, than))
    return effect_sizes.joined(effect_sizes.less, at, other)


CLAIMS = (
    *(
        Claim(
            says=f"{kind} helps a net at 95 % sparsity more than {named}",
            quote='both "GSk" and "GSw" significantly help the sparse networks more than the dense '
            "network and the performance benefits enlarges with increasing sparsity",
            source="section 4.3",
            margin=more(kind, 0.05, than),
            paper=PAPER[kind][-1] - PAPER[kind][DENSITIES.index(than)],
            room=effect_sizes.room("base", 0.05),
        )
        for than, named in ((1.0, "the dense net"), (0.8, "one at 20 %"))
        for kind in PAPER
    ),
    Claim(
        says="GSk harms the dense net",
        quote="adding extra SKs can even hurt the performance of dense ResNets with pre-existing "
        'SKs (e.g., "-0.77%" in Table 5 for ResNet-18)',
        source="section 4.3",
        margin=effect_sizes.gain("base", "GSk", 1),
        paper=0.77,
    ),
)


def change(results: Mapping[Any, Any], kind: str, density: float) -> Estimate | None:
    """Return what a tweak adds: the mean over the seeds that were trained with it and without."""
    found = effect_sizes.gain(kind, "base", density)(results)
    return Estimate.of(found) if found else None


def table(results: Mapping[Any, Any], scale: Scale) -> Table:
    """A row a tweak; the paper's change and ours at each sparsity."""
    shares = [d for d in DENSITIES if any(d == density for _, density, _ in results)]
    heads = [
        f"{'dense' if d == 1 else f'{accuracy.sparsity(d)} %'}, {who}"
        for d in shares
        for who in ("paper", "here")
    ]
    rows = [
        (
            kind,
            *(
                cell
                for d in shares
                for cell in (paper[DENSITIES.index(d)], change(results, kind, d))
            ),
        )
        for kind, paper in PAPER.items()
    ]
    title = "change of test accuracy (percentage points)"
    return Table(title, ("tweak", *heads), tuple(rows))
