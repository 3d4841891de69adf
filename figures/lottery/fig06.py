"""Lottery, Figure 6: all tweaks together (AT+TRT) on four nets and two data sets.

Test accuracy of VGG-16, ResNet-18, ResNet-34 and MobileNet on CIFAR-10 and CIFAR-100 over rounds
1 to 16 of a fifth each; the dashed line is the dense net without tweaks. The paper's claim: tickets
with the tweaks are the better ones for every net and data set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from figures import effect_sizes
from figures.claims import Claim
from figures.lottery import _ladders
from figures.lottery._runs import LEVELS, run
from figures.measurement import Need
from figures.scales import Scale
from sparsediag.plotting import style

SEEDS = 1
KINDS = ("vanilla", "AT+TRT")
CELLS = [
    (net, data)
    for data in ("cifar10", "cifar100")
    for net in ("vgg16_bn", "resnet18", "resnet34", "mobilenet")
]
NEEDS = {
    ((net, data, kind), density, seed): Need(run(kind, density, seed, net=net, data=data))
    for net, data in CELLS
    for kind in KINDS
    for density in (*((1,) if kind == "vanilla" else ()), *LEVELS.values())
    for seed in range(3)
}


def cells(results: _ladders.Results) -> list[tuple[str, str]]:
    """Nets and data sets that were trained with the tweaks."""
    there = {kind for kind, _, _ in results}
    return [cell for cell in CELLS if (*cell, "AT+TRT") in there] or CELLS


def gains(join: Callable[..., float]) -> effect_sizes.Margin:
    """Return what the tweaks add, joined over nets and data sets, a number a seed."""

    def joined(results: effect_sizes.Results) -> list[float]:
        own = [
            effect_sizes.gain((*cell, "AT+TRT"), (*cell, "vanilla"), *LEVELS.values())
            for cell in cells(results)
        ]
        return effect_sizes.joined(join, *own)(results)

    return joined


QUOTE = "our proposal out-performance prevails across all model architecture and datasets"
CLAIMS = (
    Claim(
        says="AT+TRT improves lottery tickets, on average over nets and data sets",
        quote=QUOTE,
        source="section 4.4",
        margin=gains(effect_sizes.mean),
    ),
    Claim(
        says="AT+TRT improves lottery tickets of every net and data set, also where it adds least",
        quote=QUOTE,
        source="section 4.4",
        margin=gains(lambda *values: min(values)),
    ),
)


def draw(results: dict[Any, Any], scale: Scale) -> Figure:
    """A panel a net and data set, data sets below each other."""
    there = cells(results)
    columns = max(sum(cell[1] == data for cell in there) for data in ("cifar10", "cifar100"))
    rows = -(-len(there) // columns)
    width = style.COLUMN if columns == 1 else style.PAGE
    fig = style.new_figure(width, 0.4 + 1.9 * rows)
    for i, (net, data) in enumerate(there):
        ax = fig.add_subplot(rows, columns, i + 1)
        kinds = {(net, data, kind): kind for kind in KINDS}
        _ladders.panel(
            ax,
            results,
            kinds,
            title=scale.title(run(net=net, data=data)),
            dense=[(net, data, "vanilla")],
            inches=width / columns - 0.5,
        )
        if i % columns:
            ax.set_ylabel("")
        if i + columns < len(there):
            ax.set_xlabel("")
    _ladders.legend(fig)
    return fig
