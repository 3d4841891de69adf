"""ToST, Table 5: the effect of ghost skips and soft neurons on dense and on sparse networks.

Change of the test accuracy of ResNet-18 on CIFAR-100, dense and as lottery tickets of three
sparsities. The paper's claims: both tweaks help sparse networks more than the dense one, and more
at higher sparsity; more skips even harm the dense network.
"""

from __future__ import annotations

from figures import accuracy, effect_sizes
from figures.claims import Claim
from figures.measurement import Results, history_grid
from figures.scales import Scale
from figures.tost.runs import run
from sparsediag.core.estimate import Estimate
from sparsediag.plotting.tables import Table

DENSITIES = (1.0, 0.8, 0.25, 0.05)
PAPER = {"GSk": (-0.77, 0.03, 0.56, 2.15), "GSw": (0.11, 0.29, 0.24, 1.28)}  # ToST, Table 5
MEASUREMENTS = history_grid(run, ("base", *PAPER), DENSITIES)
CLAIMS = (
    Claim(
        says="GSk and GSw help tickets at 95 % sparsity more than the dense network",
        quote='both "GSk" and "GSw" significantly help the sparse networks more than the dense '
        "network and the performance benefits enlarges with increasing sparsity",
        source="section 4.3",
        margin=effect_sizes.mean(
            *(
                effect_sizes.difference(
                    effect_sizes.gain(kind, "base", 0.05), effect_sizes.gain(kind, "base", 1)
                )
                for kind in PAPER
            )
        ),
        paper=(2.15 + 0.77 + 1.28 - 0.11) / 2,
        max_gain=effect_sizes.max_gain("base", 0.05),
    ),
    Claim(
        says="GSk harms the dense network",
        quote="adding extra SKs can even hurt the performance of dense ResNets with pre-existing "
        'SKs (e.g., "-0.77%" in Table 5 for ResNet-18)',
        source="section 4.3",
        margin=effect_sizes.gain("base", "GSk", 1),
        paper=0.77,
    ),
)


def change(results: Results, kind: str, density: float) -> Estimate | None:
    """Return the gain of a tweak: the mean over the seeds that were trained with and without it."""
    gains = effect_sizes.gain(kind, "base", density)(results).values()
    return Estimate.of(gains) if gains else None


def table(results: Results, scale: Scale) -> Table:
    """Return a row for each tweak."""
    title = "change of test accuracy (percentage points)"
    return accuracy.comparison(results, PAPER, DENSITIES, title=title, head="tweak", value=change)
