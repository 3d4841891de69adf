"""ToST, Table 4: the effect of each tweak and of all together on lottery tickets.

Test accuracy of ResNet-18 on CIFAR-100 at five sparsities. The paper's claims: every tweak helps
alone, GSk most at 95 %; together they help most.
"""

from __future__ import annotations

from figures import accuracy, effect_sizes
from figures.claims import Claim
from figures.measurement import Results, history_grid
from figures.scales import Scale
from figures.tost.runs import SINGLE, run
from sparsediag.plotting.tables import Table

# percent; ToST, Table 4
DENSITIES = (0.25, 0.2, 0.15, 0.1, 0.05)
PAPER = {
    "base": (73.21, 72.94, 71.91, 71.12, 69.57),
    "GSk": (73.77, 73.69, 72.86, 72.17, 71.72),
    "GSw": (73.45, 73.22, 73.27, 72.03, 70.85),
    "LRsI": (73.93, 73.12, 72.30, 71.83, 69.98),
    "LS": (73.58, 73.70, 72.65, 71.93, 70.19),
    "ToST": (74.29, 74.03, 73.90, 73.23, 72.08),
}
MEASUREMENTS = history_grid(run, PAPER, DENSITIES)
CLAIMS = (
    *(
        Claim(
            says=f"{kind} improves a lottery ticket at 95 % sparsity",
            quote="each tweak helps in the trainability of sparse networks in its own unique way",
            source="section 3.3",
            margin=effect_sizes.gain(kind, "base", 0.05),
            paper=PAPER[kind][-1] - PAPER["base"][-1],
            max_gain=effect_sizes.max_gain("base", 0.05),
        )
        for kind in (*SINGLE, "ToST")
    ),
    Claim(
        says="Of the single tweaks, GSk improves a lottery ticket at 95 % sparsity most",
        quote='"GSk" standalone is the most effective tweak in improving the performance at very '
        "high sparsity",
        source="section 3.3",
        margin=effect_sizes.gain_over_best("GSk", ("GSw", "LRsI", "LS"), 0.05),
        paper=71.72 - 70.85,
        max_gain=effect_sizes.max_gain_over_best(["GSk"], ["GSw", "LRsI", "LS"], 0.05),
    ),
)


def table(results: Results, scale: Scale) -> Table:
    """Return a row for each tweak."""
    title = "test accuracy (%) of lottery tickets"
    return accuracy.comparison(results, PAPER, DENSITIES, title=title, head="tweaks")
