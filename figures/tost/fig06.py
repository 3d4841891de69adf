"""ToST, Figure 6: permanent skips and soft neurons, beside those that fade before the first drop.

Test accuracy of ResNet-18 on CIFAR-100, lottery tickets. The paper's claims: permanent tweaks are
slightly better; those that fade only before the second drop of the learning rate are worse, and so
are those that are removed there abruptly. Its text has numbers for these at 95 %. The last panel
shows something that the paper does not: its released code uses a learned 1x1 convolution as the
skip, which adds dense weights to a sparse network during training.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import accuracy_plots, effect_sizes
from figures.claims import Claim
from figures.measurement import Results, history_grid
from figures.scales import Scale
from figures.tost.runs import run
from sparsediag import models
from sparsediag.core.estimate import Estimate
from sparsediag.core.prunable import prunable
from sparsediag.plotting import style
from sparsediag.plotting.accuracy import LineStyle

DENSITIES = (0.2, 0.15, 0.1, 0.05)
# points at 95 % sparsity, compared with tweaks that fade before the first drop; section 3.4
PAPER = {
    "GSk, after decay": -0.917,
    "GSw, after decay": -0.429,
    "GSk, abrupt": -1.2,
    "GSw, abrupt": -1.2,
}
PLAIN = ("without", LineStyle(style.COLOUR_OF["sparse"], "o"))
FADING = ("fades before the first drop", LineStyle(style.COLOURS[0], "s"))
PERMANENT = ("permanent", LineStyle(style.COLOURS[1], "^"))
RELEASED = ("fades, learned as released", LineStyle(style.COLOURS[2], "^"))

KINDS = ("base", "GSk", "GSw", "GSk, permanent", "GSw, permanent", "GSk, released")
MEASUREMENTS = history_grid(run, KINDS, DENSITIES) | history_grid(run, PAPER, (0.05,))


def _gain(kind: str, baseline: str, *densities: float) -> effect_sizes.Margin:
    """Return the margin between two treatments, the mean over GSk and GSw."""
    return effect_sizes.mean(
        *(
            effect_sizes.gain(kind.format(tweak), baseline.format(tweak), *densities)
            for tweak in ("GSk", "GSw")
        )
    )


CLAIMS = (
    Claim(
        says="Permanent GSk and GSw are better than those that fade",
        quote="keeping the skip connections, and swish throughout sparse training until the "
        "end provides some additional performance benefit (marginal for swish)",
        source="section 3.4",
        margin=_gain("{}, permanent", "{}", *DENSITIES),
    ),
    Claim(
        says="GSk and GSw that fade only after the first drop are worse, at 95 % sparsity",
        quote="if we ghost GSk and GSw after the first learning rate decay, and we found that "
        "the performance decreases by -0.917% and -0.429% (95% sparsity)",
        source="section 3.4",
        margin=_gain("{}", "{}, after decay", 0.05),
        paper=(0.917 + 0.429) / 2,
    ),
    Claim(
        says="GSk and GSw that are removed late and abruptly are worse, at 95 % sparsity",
        quote="abrupt removal of GSk and GSw towards the end of training, leads to significant "
        "performance drop of > 1.2% (sparsity 95%)",
        source="section 3.4",
        margin=_gain("{}", "{}, abrupt", 0.05),
        paper=1.2,
    ),
)


def num_prunable_weights(scale: Scale) -> int:
    """Return the number of weights of the dense network that a mask covers."""
    model = scale.adapt(run()).model
    with torch.device("meta"):
        net = models.build(model.name, **model.keywords())
    return sum(net.get_parameter(name).numel() for name in prunable(net))


def num_ghost_weights(results: Results) -> int:
    """Return the number of weights that the released skips add in the first epoch."""
    released = [history for (kind, _, _), history in results.items() if kind == "GSk, released"]
    return max((int(history[0]["ghost_weights"]) for history in released), default=0)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw permanent and fading tweaks; those removed late; the released skips."""
    fig = style.new_figure(style.PAGE, 2.6)
    skips, neurons, late, released = fig.subplots(1, 4)
    curves = {
        skips: {"base": PLAIN, "GSk": FADING, "GSk, permanent": PERMANENT},
        neurons: {"base": PLAIN, "GSw": FADING, "GSw, permanent": PERMANENT},
        released: {"base": PLAIN, "GSk": FADING, "GSk, released": RELEASED},
    }
    for ax, title in zip(curves, ("GSk", "GSw", "GSk"), strict=True):
        ax.sharey(skips)
        accuracy_plots.plot(ax, results, curves[ax])
        ax.set_title(title)
    for ax in (neurons, released):
        ax.set_ylabel("")
    _plot_late(late, results)
    if added := num_ghost_weights(results):
        share = added / num_prunable_weights(scale)
        released.set_title(f"GSk, learned: {added:,}\nweights, {share:.0%} of dense")
    handles: dict[str, Any] = {}
    for ax in (*curves, late):
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    fig.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper center",
        ncols=5,
        columnspacing=1.2,
    )
    return fig


def _plot_late(ax: Axes, results: Results) -> None:
    """Plot the change of accuracy at 95 % if a tweak is removed late: the paper's and ours."""
    for x, (kind, paper) in enumerate(PAPER.items()):
        label = "" if x else "paper"
        ax.plot(x, paper, "D", color="#777777", mfc="white", ms=4, label=label)
        if gains := effect_sizes.gain(kind, kind[:3], 0.05)(results).values():
            change = Estimate.of(gains)
            half = change.half if change.count > 1 else float("nan")
            ax.errorbar(x + 0.25, change.mean, half, fmt="o", color="black", ms=3, capsize=1.5)
    ax.axhline(0, color=FADING[1].colour, lw=0.8)
    names = [f"{kind[:3]}\n{'abrupt' if 'abrupt' in kind else 'late'}" for kind in PAPER]
    ax.set_xticks([x + 0.12 for x in range(len(names))], names, fontsize=6)
    ax.set(xlim=(-0.5, 3.6), ylabel="change (points)", title="removed late, 95 %")
