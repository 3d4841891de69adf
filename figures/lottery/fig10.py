"""Lottery, Figure 10: the test loss along the top Hessian eigenvector of the training loss.

The paper's claim: with the architecture and the training recipe tweaked, the loss rises less
around the minimum than with vanilla retraining. Bold lines are means over the seeds, the bands
for vanilla and AT+TRT go from the lowest to the highest seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from figures.claims import Claim, Results
from figures.lottery._runs import run
from figures.measurement import Need
from figures.scales import Scale
from sparsediag.plotting import style

SEEDS = 1
# colour and line of each
KINDS = {
    "vanilla": ("sparse", "-"),
    "skip": ("GSk", "--"),
    "Swish": ("Swish", "--"),
    "LS": ("LS", "-."),
    "LRsI": ("LRsI", "-."),
    "AT+TRT": ("ToST", "-"),
}
NEEDS = {(kind, seed): Need.top_curve(run(kind, seed=seed)) for kind in KINDS for seed in range(3)}


def changes(results: Results, kind: str) -> dict[int, np.ndarray]:
    """Change of the test loss along the line, of each seed; NaN where it overflows."""
    found = {}
    for (of, seed), result in results.items():
        if of == kind:
            change = result.loss[0] - result.centre
            found[seed] = np.where(np.isfinite(change), change, np.nan)
    return found


def flatter(kind: str) -> Callable[[Results], list[float]]:
    """Return how much less the loss rises than with vanilla, averaged over the line, by seed."""

    def gaps(results: Results) -> list[float]:
        plain, tweaked = changes(results, "vanilla"), changes(results, kind)
        both = sorted(plain.keys() & tweaked.keys())
        return [float(np.mean(plain[seed]) - np.mean(tweaked[seed])) for seed in both]

    return gaps


CLAIMS = (
    Claim(
        says="The test loss rises less around the minimum of AT+TRT than around vanilla's",
        quote="Our methods present better around the achieved local minima, which suggests "
        "improved generalization",
        source="section 4.6",
        margin=flatter("AT+TRT"),
        unit="of the loss",
    ),
    *(
        Claim(
            says=f"The test loss rises less around the minimum of {kind} alone than around "
            "vanilla's",
            quote="We expect our proposed techniques to find flatter minima for sparse subnetworks",
            source="section 4.6",
            margin=flatter(kind),
            unit="of the loss",
        )
        for kind in ("skip", "Swish", "LS", "LRsI")
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Change of the test loss over the distance."""
    fig = style.new_figure()
    ax = fig.add_subplot()
    for kind, (of, line) in KINDS.items():
        curves = np.array(list(changes(results, kind).values()))
        if not len(curves):
            continue
        distance = next(result.distance for (name, _), result in results.items() if name == kind)
        colour, bold = style.COLOUR_OF[of], kind in ("vanilla", "AT+TRT")
        ax.plot(
            distance, curves.mean(0), line, color=colour, label=kind, lw=1.6 if bold else 1,
            zorder=3 if bold else 2,
        )  # fmt: skip
        if bold and len(curves) > 1:
            low, high = curves.min(0), curves.max(0)
            ax.fill_between(distance, low, high, color=colour, alpha=0.15, lw=0)
    ax.set(xlabel="distance along the top eigenvector", ylabel="change of the test loss")
    fig.legend(loc="outside upper center", ncols=3, columnspacing=1.5)
    return fig
