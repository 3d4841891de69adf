"""ToST, Figure 6: skips and soft neurons that stay, beside those that fade before the first drop.

Test accuracy of ResNet-18 on CIFAR-100, lottery tickets. The paper's claims: what stays is slightly
better; what fades only before the second drop is worse, and so is what goes there at once. Its text
has numbers for these at 95 %. On the right, what the paper does not show: its released code has a
learned 1x1 convolution as the skip, and that adds dense weights to a sparse net while it trains.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import accuracy, effect_sizes
from figures.accuracy import Results
from figures.claims import Claim
from figures.estimate import Estimate
from figures.measurement import Need
from figures.scales import Scale
from figures.tost._runs import run
from sparsediag import models
from sparsediag.core.prunable import prunable
from sparsediag.plotting import style

DENSITIES = (0.2, 0.15, 0.1, 0.05)
TWEAKS = ("GSk", "GSw")
# points at 95 % sparsity beside what fades before the first drop; ToST, section 3.4
PAPER = {
    "GSk, after decay": -0.917,
    "GSw, after decay": -0.429,
    "GSk, abrupt": -1.2,
    "GSw, abrupt": -1.2,
}
COLOURS = {
    "without": style.COLOUR_OF["sparse"],
    "fades before the first drop": style.COLOURS[0],
    "stays": style.COLOURS[1],
    "fades, learned as released": style.COLOURS[2],
}

KINDS = ("base", *TWEAKS, *(f"{tweak}, permanent" for tweak in TWEAKS), "GSk, released")
NEEDS = {
    (kind, density, seed): Need(run(kind, density, seed))
    for density in DENSITIES
    for kind in (*KINDS, *(PAPER if density == 0.05 else ()))
    for seed in range(3)
}


def _claims(tweak: str) -> tuple[Claim, ...]:
    late, abrupt = f"{tweak}, after decay", f"{tweak}, abrupt"
    return (
        Claim(
            says=f"{tweak} that stays is better than {tweak} that fades",
            quote="keeping the skip connections, and swish throughout sparse training until the "
            "end provides some additional performance benefit (marginal for swish)",
            source="section 3.4",
            margin=effect_sizes.gain(f"{tweak}, permanent", tweak, *DENSITIES),
        ),
        Claim(
            says=f"{tweak} that fades only after the first drop is worse, at 95 % sparsity",
            quote="if we ghost GSk and GSw after the first learning rate decay, and we found that "
            "the performance decreases by -0.917% and -0.429% (95% sparsity)",
            source="section 3.4",
            margin=effect_sizes.gain(tweak, late, 0.05),
            paper=-PAPER[late],
            room=effect_sizes.room(late, 0.05),
        ),
        Claim(
            says=f"{tweak} that goes late and at once is worse, at 95 % sparsity",
            quote="abrupt removal of GSk and GSw towards the end of training, leads to significant "
            "performance drop of > 1.2% (sparsity 95%)",
            source="section 3.4",
            margin=effect_sizes.gain(tweak, abrupt, 0.05),
            paper=-PAPER[abrupt],
            room=effect_sizes.room(abrupt, 0.05),
        ),
    )


CLAIMS = tuple(claim for tweak in TWEAKS for claim in _claims(tweak))


def weights(scale: Scale) -> int:
    """Weights of the dense net that a mask covers."""
    model = scale.run(run()).model
    with torch.device("meta"):
        net = models.build(model.name, **model.keywords())
    return sum(net.get_parameter(name).numel() for name in prunable(net))


def added(results: Results) -> int:
    """Weights that the released skips add in the first epoch."""
    histories = [rows for (kind, _, _), rows in results.items() if kind == "GSk, released"]
    return max((int(rows[0]["ghost_weights"]) for rows in histories), default=0)


def draw(results: Results, scale: Scale) -> Figure:
    """Return what stays, for both tweaks; what goes late; the released skips."""
    fig = style.new_figure(style.PAGE, 2.6)
    panels = fig.subplots(1, 4)
    shown = (
        ("GSk", ("base", "GSk", "GSk, permanent"), 0),
        ("GSw", ("base", "GSw", "GSw, permanent"), 1),
        ("GSk", ("base", "GSk", None, "GSk, released"), 3),
    )
    names: dict[str, Any] = {}
    for title, kinds, i in shown:
        ax = panels[i]
        ax.sharey(panels[0])
        told = zip(kinds, COLOURS.items(), strict=False)
        accuracy.ladder(ax, results, {kind: look for kind, look in told if kind})
        ax.set_title(title)
        handles, labels = ax.get_legend_handles_labels()
        names |= dict(zip(labels, handles, strict=True))
        if i:
            ax.set_ylabel("")
    names |= _late(panels[2], results)
    if more := added(results):
        share = more / weights(scale)
        panels[3].set_title(f"GSk, learned: {more:,}\nweights, {share:.0%} of dense")
    fig.legend(
        list(names.values()), list(names), loc="outside upper center", ncols=5, columnspacing=1.2
    )
    return fig


def _late(ax: Axes, results: Results) -> dict[str, Any]:
    """Return the cost of leaving late at 95 %: ours, the paper's, and their difference."""
    for x, (kind, paper) in enumerate(PAPER.items()):
        (diamond,) = ax.plot(x, paper, "D", color="#777777", mfc="white", ms=4)
        if found := effect_sizes.gain(kind, kind[:3], 0.05)(results):
            cost = Estimate.of(found)
            half = cost.half if cost.count > 1 else float("nan")
            ax.errorbar(x + 0.25, cost.mean, half, fmt="o", color="black", ms=3, capsize=1.5)
    ax.axhline(0, color=COLOURS["fades before the first drop"], lw=0.8)
    ways = ("late", "at\nonce")
    names = [f"{kind[:3]}\n{ways['abrupt' in kind]}" for kind in PAPER]
    ax.set_xticks([x + 0.12 for x in range(len(names))], names)
    ax.set(xlim=(-0.5, 3.6), ylabel="change (points)", title="gone late, at 95 %")
    return {"paper": diamond}
