"""Lottery, Figure 11: loss surfaces of the trained nets over the input space, clamped at 8.

The paper's claims: the tweaks flatten the landscape around test images, and label smoothing changes
it most in this late phase. The axes are the sign of the loss gradient in the image and a random
direction of signs that all nets share; the surface is the mean over test images that all nets
share. The paper does not say which net its second panel shows; here it is LRsI, so that the nets
are those of Figure 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.claims import Claim, Results
from figures.lottery._runs import run
from figures.lottery.fig05 import apart, first
from figures.measurement import Need
from figures.scales import Scale
from sparsediag.plotting import style

SEEDS = 1
TWEAKS = {"LRsI": "rescaled initialisation", "skip": "new skips", "LS": "label smoothing"}
KINDS = ("vanilla", *TWEAKS)
NEEDS = {
    (kind, seed): Need(run(kind, seed=seed), "inputscape", split="test")
    for kind in KINDS
    for seed in range(3)
}


def rise(result: Any) -> float:
    """Mean rise of the clamped loss over the plane and the images."""
    return float(np.mean(result.loss) - np.minimum(result.centre, result.clamp).mean())


def flatter(kind: str) -> Callable[[Results], list[float]]:
    """Return how much less the loss rises than in the plain net, a number a seed."""

    def gaps(results: Results) -> list[float]:
        both = [s for of, s in sorted(results) if of == kind and ("vanilla", s) in results]
        return [rise(results["vanilla", seed]) - rise(results[kind, seed]) for seed in both]

    return gaps


def most(results: Results) -> list[float]:
    """Return how much further LS is from the plain surface than the next tweak, by seed."""
    seeds = sorted(s for of, s in results if of == "LS" and all((k, s) in results for k in KINDS))
    gaps = []
    for seed in seeds:
        plain = results["vanilla", seed].mean
        far = {kind: apart(results[kind, seed].mean, plain) for kind in TWEAKS}
        gaps.append(far.pop("LS") - max(far.values()))
    return gaps


CLAIMS = (
    *(
        Claim(
            says=f"The loss rises less around test images with {name}",
            quote="our methods notably flatten the landscape w.r.t. input space, compared to "
            "vanilla-LTH baseline",
            source="section 4.6",
            margin=flatter(kind),
            unit="of the loss",
        )
        for kind, name in TWEAKS.items()
    ),
    Claim(
        says="Of the three tweaks, label smoothing changes the landscape of the trained net most",
        quote="label-smoothing tends to impact the later phase of training more (highest "
        "difference in loss landscape, Figure 11(d))",
        source="section 3.3",
        margin=most,
        unit="factor (log10)",
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """A surface a net, of the first seed, all to one height and one scale of colour."""
    shown = first(results, KINDS)
    fig = style.new_figure(1.75 * len(shown), 2.2)
    top = max(float(np.nanmax(result.mean)) for result in shown.values())
    for i, (kind, result) in enumerate(shown.items()):
        ax: Any = fig.add_subplot(1, len(shown), i + 1, projection="3d")
        x, y = np.meshgrid(*result.axes, indexing="ij")
        ax.plot_surface(x, y, result.mean, cmap="cividis", vmin=0, vmax=top, linewidth=0)
        ax.set(zlim=(0, top))
        ends = (result.axes[0, 0], 0, result.axes[0, -1])
        ax.set(xticks=ends, yticks=ends)
        ax.set_xlabel(result.labels[0], fontsize=5, labelpad=-8)
        ax.set_ylabel(result.labels[1], fontsize=5, labelpad=-8)
        ax.set_title(f"{kind}\nloss, mean rise {rise(result):.2f}", y=0.9)
        ax.tick_params(labelsize=5, pad=-3)
        ax.set_box_aspect(None, zoom=0.85)
    return fig
