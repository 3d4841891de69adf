"""ToST, Figure 10: loss over the input space around test images, plain and with each tweak.

ResNet-18 on CIFAR-100, a lottery ticket of 90 % sparsity. The paper's claim: every tweak flattens
the landscape. It does not say which directions it draws; above, the axes are the sign of the loss
gradient in the image and a random direction of signs, below, two random ones. Images, random
directions and the levels of a row are common to all nets; the surfaces are means over the images of
the first seed, each image's loss clamped at 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.claims import Claim, Results
from figures.estimate import Estimate
from figures.measurement import Need
from figures.scales import Scale
from figures.tost._runs import SINGLE, run
from sparsediag.plotting import style

KINDS = ("base", *SINGLE)
NEEDS = {
    (axes, kind, seed): Need(
        run(kind, 0.1, seed), "inputscape", split="test", options=(("axes", axes),)
    )
    for axes, seeds in {"gradient": range(3), "random": range(1)}.items()
    for kind in KINDS
    for seed in seeds
}


def rise(result: Any) -> float:
    """Mean of the loss over the plane and the images, less that of the images themselves."""
    loss = np.nan_to_num(result.loss, nan=result.clamp)  # where it overflowed
    return float(loss.mean() - np.minimum(result.centre, result.clamp).mean())


def rises(results: Results, axes: str, kind: str) -> dict[int, float]:
    """The rise around each seed's net."""
    return {s: rise(r) for (a, k, s), r in sorted(results.items()) if (a, k) == (axes, kind)}


def flatter(results: Results, kind: str) -> list[float]:
    """Return how much less the loss rises along the gradient than for the plain net, by seed."""
    plain, tweaked = (rises(results, "gradient", of) for of in ("base", kind))
    return [plain[seed] - tweaked[seed] for seed in sorted(set(plain) & set(tweaked))]


def _claim(kind: str) -> Claim:
    return Claim(
        says=f"{kind} flattens the loss over the input space (mean rise, gradient axes)",
        quote="each one of our tweaks notably flatten the sharp landscape w.r.t. the input space",
        source="section 4.2",
        margin=lambda results: flatter(results, kind),
        unit="nats",
    )


CLAIMS = tuple(_claim(kind) for kind in SINGLE)


def draw(results: Results, scale: Scale) -> Figure:
    """A panel a net and kind of axes; the number is the mean rise over the plane."""
    rows = [a for a in ("gradient", "random") if any(of == a for of, _, _ in results)]
    kinds = [k for k in KINDS if any(of == k for _, of, _ in results)]
    fig = style.new_figure(style.PAGE * (len(kinds) + 1) / 6, 0.2 + 1.75 * len(rows))
    for i, axes in enumerate(rows):
        first: dict[str, Any] = {}
        for (of, kind, _), result in sorted(results.items()):
            if of == axes:
                first.setdefault(kind, result)
        levels = style.loss_levels(*(result.mean for result in first.values()))
        row = []
        for j, kind in enumerate(kinds):
            if kind not in first:
                continue
            ax = fig.add_subplot(len(rows), len(kinds), i * len(kinds) + j + 1)
            row.append(ax)
            x, y = first[kind].axes
            filled = style.plot_contours(ax, x, y, first[kind].mean, levels=levels, bar=False)
            rising = Estimate.of(rises(results, axes, kind).values())
            name = "plain sparse" if kind == "base" else kind
            ax.set_title(f"{name}\nrise {rising.told('.3f')}")
            ax.tick_params(labelleft=not j)
            if j == len(kinds) // 2:
                ax.set_xlabel(first[kind].labels[0])
        row[0].set_ylabel(next(iter(first.values())).labels[1])
        bar = fig.colorbar(filled, ax=row, label="loss", ticks=levels[::4], shrink=0.85)
        bar.ax.set_yticklabels([f"{level:.2g}" for level in levels[::4]])
        bar.ax.minorticks_off()
    return fig
