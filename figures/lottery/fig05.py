"""Lottery, Figure 5: loss contours early in the training (the paper's epoch 5 of 180).

The paper's claim: new skips and rescaled initialisation change the landscape most at this stage,
label smoothing least. The planes are those of Li et al. (2018): all networks share two Gaussian,
filter-normalised directions, zero on pruned weights, and the levels. The statistics of batch norm
are computed anew at every point, because their running means lag behind the weights so early.

The number is the factor between the losses of a network and of the plain one, a geometric mean over
the plane and over the seeds. For the plain network it is the factor between two seeds, which shows
the effect of chance alone.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from matplotlib.figure import Figure

from figures.claims import Claim
from figures.effect_sizes import Margin, mean, seed_differences
from figures.loss_surfaces import first_seeds, log_distance
from figures.lottery.runs import run
from figures.measurement import ALL_SEEDS, Measurement, Results, by_seed
from figures.scales import Scale
from sparsediag.plotting import style

KINDS = ("vanilla", "skip", "LS", "LRsI")
OPTIONS = (("statistics", "estimate"),)
MEASUREMENTS = {
    (kind, seed): Measurement(run(kind, seed=seed), "landscape", when="early", options=OPTIONS)
    for kind in KINDS
    for seed in ALL_SEEDS
}


def distances(results: Results, kind: str) -> dict[int, float]:
    """Return the distance between the landscapes of a kind and of the plain network, by seed."""
    plain = by_seed(results, "vanilla")
    return {
        seed: log_distance(result.loss, plain[seed].loss)
        for seed, result in by_seed(results, kind).items()
        if seed in plain
    }


def chance(results: Results) -> list[float]:
    """Return the distances between the plain landscapes of any two seeds."""
    plain = by_seed(results, "vanilla").values()
    return [log_distance(first.loss, second.loss) for first, second in combinations(plain, 2)]


def more_than_smoothing(kind: str) -> Margin:
    """Return how much more a tweak changes the landscape than label smoothing, by seed."""
    return lambda results: seed_differences(distances(results, kind), distances(results, "LS"))


CLAIMS = (
    Claim(
        says="Early on, skips and LRsI change the landscape more than LS does",
        quote="our architecture changes (skip-connection) can remarkably change the loss landscape",
        source="section 3.3",
        margin=mean(more_than_smoothing("skip"), more_than_smoothing("LRsI")),
        unit="ratio (log10)",
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw a panel for each network, its first seed; the number is the factor between losses."""
    first_results = first_seeds(results, KINDS)
    fig = style.new_figure(0.5 + 1.625 * len(first_results), 2.3)
    panels = fig.subplots(1, len(first_results), sharex=True, sharey=True, squeeze=False)[0]
    levels = style.loss_levels(*(result.loss for result in first_results.values()))
    for ax, (kind, result) in zip(panels, first_results.items(), strict=True):
        x, y = result.axes
        style.plot_contours(ax, x, y, result.loss, levels=levels, colorbar=ax is panels[-1])
        is_plain = kind == "vanilla"
        logs = chance(results) if is_plain else list(distances(results, kind).values())
        factor = f"factor {10 ** np.mean(logs):.2f}{' by chance' * is_plain}" if logs else ""
        ax.set_title(f"{kind}\n{factor}")
        ax.set(xlabel="direction 1", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    panels[0].set_ylabel("direction 2")
    return fig
