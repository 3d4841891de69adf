"""Lottery, Figure 6: all tweaks together (AT+TRT) on four networks and two data sets.

Test accuracy of VGG-16, ResNet-18, ResNet-34 and MobileNet on CIFAR-10 and CIFAR-100 over rounds
1 to 16 of a fifth each; the dashed line is the dense network without tweaks. The paper's claim:
tickets with the tweaks are better for every network and data set.
"""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from figures import effect_sizes
from figures.claims import Claim
from figures.lottery import panels
from figures.lottery.runs import LEVELS, all_levels, run
from figures.measurement import Results
from figures.scales import Scale
from sparsediag.plotting import style

KINDS = ("vanilla", "AT+TRT")
CELLS = [
    (net, data)
    for data in ("cifar10", "cifar100")
    for net in ("vgg16_bn", "resnet18", "resnet34", "mobilenet")
]
MEASUREMENTS = {
    ((net, data, kind), density, seed): measurement
    for net, data in CELLS
    for (kind, density, seed), measurement in all_levels(KINDS, net=net, data=data).items()
}


def trained_cells(results: Results) -> list[tuple[str, str]]:
    """Return the networks and data sets that were trained with the tweaks, or all if none was."""
    trained = {kind for kind, _, _ in results}
    return [cell for cell in CELLS if (*cell, "AT+TRT") in trained] or CELLS


def mean_gain(results: Results) -> Mapping[int, float]:
    """Return the gain of the tweaks, the mean over networks, data sets and sparsities, by seed."""
    gains = (
        effect_sizes.gain((*cell, "AT+TRT"), (*cell, "vanilla"), *LEVELS.values())
        for cell in trained_cells(results)
    )
    return effect_sizes.mean(*gains)(results)


CLAIMS = (
    Claim(
        says="AT+TRT improves tickets, on average over networks and data sets",
        quote="our proposal out-performance prevails across all model architecture and datasets",
        source="section 4.4",
        margin=mean_gain,
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw a panel for each network and data set, with one data set below the other."""
    cells = trained_cells(results)
    columns = max(sum(cell[1] == data for cell in cells) for data in ("cifar10", "cifar100"))
    rows = -(-len(cells) // columns)
    width = style.COLUMN if columns == 1 else style.PAGE
    fig = style.new_figure(width, 0.4 + 1.9 * rows)
    for i, cell in enumerate(cells):
        ax = fig.add_subplot(rows, columns, i + 1)
        panels.panel(
            ax,
            results,
            [(*cell, kind) for kind in KINDS],
            title=scale.title(run(net=cell[0], data=cell[1])),
            dense=[(*cell, "vanilla")],
            inches=width / columns - 0.5,
        )
        if i % columns:
            ax.set_ylabel("")
        if i + columns < len(cells):
            ax.set_xlabel("")
    panels.legend(fig)
    return fig
