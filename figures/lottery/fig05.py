"""Lottery, Figure 5: loss contours early in the training (the paper's epoch 5 of 180).

The paper's claim: new skips and rescaled initialisation change the landscape most at this stage,
label smoothing least. The planes are those of Li et al. (2018): the same two Gaussian,
filter-normalised directions for all nets, zero on dead weights, and common levels. Batch norm is
measured anew at every point: so early, its running statistics lag behind the weights.

The number is how far a landscape is from that of the plain net: the factor between their losses,
as a geometric mean over the plane, and over the seeds. For the plain net it is the factor between
two seeds, which is as much as chance alone does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.claims import Claim, Results
from figures.lottery._runs import run
from figures.measurement import Need
from figures.scales import Scale
from sparsediag.plotting import style

SEEDS = 1
KINDS = ("vanilla", "skip", "LS", "LRsI")
ANEW = (("statistics", "estimate"),)
NEEDS = {
    (kind, seed): Need(run(kind, seed=seed), "landscape", when="early", options=ANEW)
    for kind in KINDS
    for seed in range(3)
}


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean of |log10 of the ratio| of two losses, over the points where both are finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.abs(np.log10(one) - np.log10(other))
    return float(np.mean(logs[np.isfinite(logs)])) if np.isfinite(logs).any() else np.nan


def changes(results: Results, kind: str) -> dict[int, float]:
    """Return how far each seed's landscape is from the plain net's with that seed."""
    return {
        seed: apart(result.loss, results["vanilla", seed].loss)
        for (of, seed), result in results.items()
        if of == kind and ("vanilla", seed) in results
    }


def chance(results: Results) -> list[float]:
    """Return how far the plain net's landscapes are apart from seed to seed."""
    plain = [result.loss for (kind, _), result in results.items() if kind == "vanilla"]
    return [apart(*pair) for pair in combinations(plain, 2)]


def more(kind: str) -> Callable[[Results], list[float]]:
    """Return how much more a tweak changes the landscape than smoothing does, by seed."""

    def gaps(results: Results) -> list[float]:
        ours, least = changes(results, kind), changes(results, "LS")
        return [ours[seed] - least[seed] for seed in sorted(ours.keys() & least.keys())]

    return gaps


CLAIMS = (
    Claim(
        says="Early in the training, new skips change the landscape more than label smoothing does",
        quote="our architecture changes (skip-connection) can remarkably change the loss landscape",
        source="section 3.3",
        margin=more("skip"),
        unit="factor (log10)",
    ),
    Claim(
        says="Early in the training, rescaled initialisation changes the landscape more than label "
        "smoothing does",
        quote="our layer-wise scaling technique also has a very high impact in the early training "
        "stage",
        source="section 3.3",
        margin=more("LRsI"),
        unit="factor (log10)",
    ),
)


def first(results: Results, kinds: Iterable[str]) -> dict[str, Any]:
    """The first seed of each kind that is there."""
    seeds = {kind: [s for of, s in results if of == kind] for kind in kinds}
    return {kind: results[kind, min(found)] for kind, found in seeds.items() if found}


def draw(results: Results, scale: Scale) -> Figure:
    """A panel a net, of the first seed; the number is the factor to the plain net's loss."""
    shown = first(results, KINDS)
    fig = style.new_figure(0.5 + 1.625 * len(shown), 2.3)
    panels = fig.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
    levels = style.loss_levels(*(result.loss for result in shown.values()))
    for ax, (kind, result) in zip(panels, shown.items(), strict=True):
        x, y = result.axes
        style.plot_contours(ax, x, y, result.loss, levels=levels, bar=ax is panels[-1])
        found = chance(results) if kind == "vanilla" else list(changes(results, kind).values())
        factor = f"factor {10 ** np.mean(found):.2f}" if found else ""
        ax.set_title(f"{kind}\n{factor}{' by chance' * (kind == 'vanilla' and bool(found))}")
        ax.set(xlabel="direction 1", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    panels[0].set_ylabel("direction 2")
    return fig
