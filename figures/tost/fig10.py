"""ToST, Figure 10: loss in the space of the inputs, around test images, with each tweak.

ResNet-18 on CIFAR-100, a lottery ticket with 90 % sparsity. The paper's claim: every tweak flattens
the landscape. It does not say which directions it draws. Here the axes of the first row are the
sign of the loss gradient in the image and a random direction of signs; those of the second row are
two random directions. All networks share the images, the random directions and, in each row, the
levels. The surfaces are means over the images, for the first seed, with the loss of each image
clamped at 8.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures.claims import Claim
from figures.effect_sizes import mean
from figures.loss_surfaces import flatter_inputs, mean_rise
from figures.measurement import ALL_SEEDS, Measurement, Results, by_seed
from figures.scales import Scale
from figures.tost.runs import SINGLE, run
from sparsediag.core.estimate import Estimate
from sparsediag.plotting import style

KINDS = ("base", *SINGLE)
MEASUREMENTS = {
    (axes, kind, seed): Measurement(
        run(kind, 0.1, seed), "inputscape", split="test", options=(("axes", axes),)
    )
    for axes, seeds in {"gradient": ALL_SEEDS, "random": range(1)}.items()
    for kind in KINDS
    for seed in seeds
}
CLAIMS = (
    Claim(
        says="The tweaks flatten the loss around test images, on average over the four",
        quote="each one of our tweaks notably flatten the sharp landscape w.r.t. the input space",
        source="section 4.2",
        margin=mean(*(flatter_inputs(("gradient", kind), ("gradient", "base")) for kind in SINGLE)),
        unit="nats",
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw a panel for each network and pair of axes; its number is the mean rise of the loss."""
    rows = [axes for axes in ("gradient", "random") if any(of == axes for of, _, _ in results)]
    kinds = [kind for kind in KINDS if any(of == kind for _, of, _ in results)]
    fig = style.new_figure(style.PAGE * (len(kinds) + 1) / 6, 0.2 + 1.75 * len(rows))
    for i, axes in enumerate(rows):
        trained = {kind: by_seed(results, axes, kind) for kind in kinds}
        first = {kind: next(iter(seeds.values())) for kind, seeds in trained.items() if seeds}
        levels = style.loss_levels(*(result.mean for result in first.values()))
        row: list[Any] = []
        for j, kind in enumerate(kinds):
            if kind not in first:
                continue
            ax = fig.add_subplot(len(rows), len(kinds), i * len(kinds) + j + 1)
            row.append(ax)
            x, y = first[kind].axes
            filled = style.plot_contours(ax, x, y, first[kind].mean, levels=levels, colorbar=False)
            rise = Estimate.of(map(mean_rise, trained[kind].values()))
            name = "plain sparse" if kind == "base" else kind
            ax.set_title(f"{name}\nrise {rise.format('.3f')}")
            ax.tick_params(labelleft=not j)
            if j == len(kinds) // 2:
                ax.set_xlabel(first[kind].labels[0])
        row[0].set_ylabel(next(iter(first.values())).labels[1])
        bar = fig.colorbar(filled, ax=row, label="loss", ticks=levels[::4], shrink=0.85)
        bar.ax.set_yticklabels([f"{level:.2g}" for level in levels[::4]])
        bar.ax.minorticks_off()
    return fig
