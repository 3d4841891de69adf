"""ToST, Figure 7: lottery tickets of VGG-16 and MobileNet, trained plainly and with ToST.

Test accuracy over sparsity, rounds 1 to 16 of a fifth each. The paper's claims: ToST helps at all
sparsities, and the more the sparser the net.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures import accuracy, effect_sizes
from figures.claims import Claim
from figures.lottery import _runs
from figures.lottery._runs import LEVELS
from figures.measurement import Need
from figures.scales import Scale
from figures.tost._runs import run
from sparsediag.plotting import style

SEEDS = 1
CELLS = [(net, data) for net in ("vgg16_bn", "mobilenet") for data in ("cifar10", "cifar100")]
NEEDS = {
    ((net, data, kind), density, seed): Need(trained)
    for net, data in CELLS
    for density in LEVELS.values()
    for seed in range(3)
    for kind, trained in {
        "LTH": _runs.run(density=density, seed=seed, net=net, data=data),
        "ToST": run("ToST", density, seed, net=net, data=data),
    }.items()
}
KINDS = {"LTH": style.COLOUR_OF["sparse"], "ToST": style.COLOUR_OF["ToST"]}


def over_cells(*densities: float) -> effect_sizes.Margin:
    """Return what ToST adds, the mean over nets and data sets, a number a seed."""

    def gains(results: effect_sizes.Results) -> list[float]:
        there = [cell for cell in CELLS if any(of == (*cell, "ToST") for of, _, _ in results)]
        own = [effect_sizes.gain((*cell, "ToST"), (*cell, "LTH"), *densities) for cell in there]
        return effect_sizes.joined(effect_sizes.mean, *own)(results) if own else []

    return gains


CLAIMS = (
    Claim(
        says="ToST improves lottery tickets of VGG-16 and MobileNet",
        quote="our proposed tweaks help significantly in improving the performance of sparse "
        "tickets across all sparsities",
        source="section 4.1",
        margin=over_cells(*LEVELS.values()),
    ),
    Claim(
        says="ToST helps more at 97 % sparsity than at 91 %",
        quote="the performance benefits of our tweaks increases significantly with increase in "
        "the sparsity level",
        source="section 4.1",
        margin=effect_sizes.joined(
            effect_sizes.less, over_cells(LEVELS[16]), over_cells(LEVELS[11])
        ),
    ),
)


def draw(results: dict[Any, Any], scale: Scale) -> Figure:
    """A panel a net and data set."""
    cells = [cell for cell in CELLS if any(of[:2] == cell for of, _, _ in results)]
    fig = style.new_figure(max(style.COLUMN, style.PAGE * len(cells) / 4), 2.2)
    for i, (net, data) in enumerate(cells):
        ax = fig.add_subplot(1, len(cells), i + 1)
        kinds = {(net, data, kind): (kind, colour) for kind, colour in KINDS.items()}
        accuracy.ladder(ax, results, kinds, inches=fig.get_figwidth() / len(cells) - 0.6)
        ax.set_title(scale.title(run(net=net, data=data)).replace(" of ", "\nof "))
        if i:
            ax.set_ylabel("")
    ax.legend()
    return fig
