"""ToST, Figure 7: lottery tickets of VGG-16 and MobileNet, trained with and without ToST.

Test accuracy over sparsity, rounds 1 to 16 of a fifth each. The paper's claims: ToST helps at all
sparsities, and the more the sparser the network.
"""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from figures import accuracy_plots, effect_sizes
from figures.claims import Claim
from figures.lottery import runs as lottery_runs
from figures.lottery.runs import LEVELS
from figures.measurement import ALL_SEEDS, Measurement, Results
from figures.scales import Scale
from figures.tost.runs import run
from sparsediag.plotting import style
from sparsediag.plotting.accuracy import LineStyle

SEEDS = 1
CELLS = [(net, data) for net in ("vgg16_bn", "mobilenet") for data in ("cifar10", "cifar100")]
MEASUREMENTS = {
    ((net, data, kind), density, seed): Measurement(training)
    for net, data in CELLS
    for density in LEVELS.values()
    for seed in ALL_SEEDS
    for kind, training in {
        "LTH": lottery_runs.run(density=density, seed=seed, net=net, data=data),
        "ToST": run("ToST", density, seed, net=net, data=data),
    }.items()
}
LINE_STYLES = {
    "LTH": LineStyle(style.COLOUR_OF["sparse"], "o"),
    "ToST": LineStyle(style.COLOUR_OF["ToST"], "s"),
}


def cells(results: Results, *kinds: str) -> list[tuple[str, str]]:
    """Return the networks and data sets of which any of these kinds was trained."""
    trained = {kind for kind, _, _ in results}
    return [cell for cell in CELLS if any((*cell, kind) in trained for kind in kinds)]


def mean_gain(results: Results) -> Mapping[int, float]:
    """Return the gain of ToST, the mean over networks, data sets and sparsities, by seed."""
    gains = (
        effect_sizes.gain((*cell, "ToST"), (*cell, "LTH"), *LEVELS.values())
        for cell in cells(results, "ToST")
    )
    return effect_sizes.mean(*gains)(results)


CLAIMS = (
    Claim(
        says="ToST improves lottery tickets of VGG-16 and MobileNet",
        quote="our proposed tweaks help significantly in improving the performance of sparse "
        "tickets across all sparsities",
        source="section 4.1",
        margin=mean_gain,
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw a panel for each network and data set."""
    trained = cells(results, *LINE_STYLES)
    fig = style.new_figure(max(style.COLUMN, style.PAGE * len(trained) / 4), 2.2)
    for i, (net, data) in enumerate(trained):
        ax = fig.add_subplot(1, len(trained), i + 1)
        curves = {(net, data, kind): (kind, line_style) for kind, line_style in LINE_STYLES.items()}
        inches = fig.get_figwidth() / len(trained) - 0.6
        accuracy_plots.plot(ax, results, curves, inches=inches)
        ax.set_title(scale.title(run(net=net, data=data)).replace(" of ", "\nof "))
        if i:
            ax.set_ylabel("")
    ax.legend()
    return fig
