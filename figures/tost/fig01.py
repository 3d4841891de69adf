"""ToST, Figure 1: the toolkit, and when each of its tweaks is active. A schematic.

Networks with any mask are trained with four tweaks, and the result is a plain sparse network. The
masks, the tweaks and their schedules over the 180 epochs are read from the training code.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.measurement import Results
from figures.scales import Scale
from figures.tost.runs import KINDS, SINGLE, run
from sparsediag.plotting import style
from training.masks import METHODS
from training.optim import epoch_at
from training.tweaks import TWEAKS, Tweak, expand_groups
from training.tweaks.ghosts import GhostNeurons, GhostSkips
from training.tweaks.rescale import Rescale
from training.tweaks.smoothing import Smoothing

OPTIM = run().optim
EPOCHS = OPTIM.epochs
TOST = expand_groups(["tost"])
LANES = {  # the paper's names -> tweaks
    kind: TWEAKS[name](**TOST[name]) for kind in SINGLE for name in KINDS[kind] if name in TOST
}


def schedule(tweak: Tweak) -> tuple[str, list[float]]:
    """Return a tweak's label and its strength in every epoch; LRsI acts before the first one."""
    if isinstance(tweak, GhostSkips):
        return "gate \N{GREEK SMALL LETTER ALPHA}", [tweak.gate(e, EPOCHS) for e in range(EPOCHS)]
    if isinstance(tweak, GhostNeurons):
        return "softness 1/β", [1 / tweak.beta(epoch, EPOCHS) for epoch in range(EPOCHS)]
    if isinstance(tweak, Smoothing):
        return "label smoothing", [tweak.strength(epoch, EPOCHS) for epoch in range(EPOCHS)]
    if isinstance(tweak, Rescale):
        return f"{tweak.steps} steps, once", []
    raise ValueError(f"{type(tweak).__name__}: Figure 1 has no lane for this tweak")


def boxes() -> dict[str, str]:
    """Return head and text of each box, from the mask to the plain network."""
    masks = [name for name in METHODS if name not in ("dense", "file")]
    half = len(masks) // 2
    end = max(tweak.plain_from(EPOCHS) for tweak in LANES.values())
    return {
        "any mask": f"{', '.join(masks[:half])},\n{', '.join(masks[half:])}, a file",
        "initial weights": "with the mask,\nscaled by LRsI",
        "sparse training": "with skips (GSk), soft neurons\n(GSw), smooth labels (LS)",
        "plain sparse network": f"after {end} epochs: ReLU,\nits own skips only",
    }


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the steps on top; below, a lane for each tweak and one for the learning rate."""
    fig = style.new_figure(style.PAGE, 3.5)
    grid = fig.add_gridspec(2, 1, height_ratios=(1, 4))
    top, bottom = fig.add_subfigure(grid[0]), fig.add_subfigure(grid[1])
    _boxes(top.add_subplot())
    lanes = np.ravel(bottom.subplots(1 + len(LANES), 1, sharex=True))
    edges = np.arange(EPOCHS + 1)
    for ax, (kind, tweak) in zip(lanes, LANES.items(), strict=False):
        label, values = schedule(tweak)
        colour = style.COLOUR_OF[kind]
        if values:
            ax.stairs(values, edges, color=colour, fill=True, alpha=0.35)
            ax.stairs(values, edges, color=colour, baseline=None)
            ax.set_ylim(0, 1.2 * max(values))
        else:
            ax.axvspan(-0.02 * EPOCHS, 0, color=colour, lw=0)
            ax.text(1, 0.5, "before the first epoch", va="center", fontsize=7)
            ax.set(ylim=(0, 1), yticks=[])
        ax.set_ylabel(f"{kind}\n{label}", rotation=0, ha="right", va="center")
    rates = [OPTIM.rate(epoch) for epoch in range(EPOCHS)]
    drops = [epoch_at(drop, EPOCHS) for drop in OPTIM.lr_milestones]
    last = lanes[-1]
    last.stairs(rates, edges, color=style.COLOUR_OF["sparse"], baseline=None)
    last.set(yscale="log", ylim=(min(rates) / 2, max(rates) * 2), xlabel="epoch")
    last.set(xlim=(-0.02 * EPOCHS, EPOCHS), xticks=[0, *drops, EPOCHS])
    last.set_ylabel("learning\nrate", rotation=0, ha="right", va="center")
    bottom.align_ylabels(lanes)
    return fig


def _boxes(ax: Axes) -> None:
    """Draw the boxes from left to right, with arrows between them."""
    ax.axis("off")
    ax.set(xlim=(-0.002, 1), ylim=(0, 1))
    edges = (0.0, 0.29, 0.47, 0.75, 1.0)
    for (head, text), left, right in zip(boxes().items(), edges, edges[1:], strict=False):
        middle, gap = (left + right) / 2, 0.018
        ax.fill_between((left, right - gap), 0.02, 0.98, fc="#f4f4f4", ec="#777777", lw=0.8)
        ax.text(middle - gap / 2, 0.76, head, ha="center", va="center", fontweight="bold")
        ax.text(middle - gap / 2, 0.34, text, ha="center", va="center", fontsize=7)
        if right < 1:
            arrow = {"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (right, 0.5), (right - gap, 0.5), arrowprops=arrow)
