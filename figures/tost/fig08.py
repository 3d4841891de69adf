"""ToST, Figure 8: the test loss along the top Hessian eigenvector of the training loss.

ResNet-18 on CIFAR-100, a lottery ticket with 90 % sparsity. The paper's claim: the loss rises less
around the minimum that each tweak finds. Distances are Euclidean, and LRsI changes the norm of the
weights. Tools without masks also move pruned weights, which a sparse network cannot do. So the
right panel shows the top eigenvalue over the live weights beside that over all weights, which is
never smaller.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.claims import Claim
from figures.loss_surfaces import flatter_curve, plot_curve
from figures.measurement import ALL_SEEDS, Measurement, Results, by_seed
from figures.scales import Scale
from figures.tost.runs import SINGLE, run
from sparsediag.plotting import style

KINDS = ("base", *SINGLE, "ToST")
LINES = dict(zip(KINDS, ("-", "--", "-.", (0, (3, 1, 1, 1, 1, 1)), ":", "-"), strict=True))
COLOURS = {kind: style.COLOUR_OF["sparse" if kind == "base" else kind] for kind in KINDS}
VIEWS = {"live": (("top", 1),), "dense": (("top", 1), ("dense", True))}
MEASUREMENTS = {
    ("curve", kind, seed): Measurement.along_top_eigenvector(run(kind, 0.1, seed))
    for kind in KINDS
    for seed in ALL_SEEDS
} | {
    (view, kind, seed): Measurement(run(kind, 0.1, seed), "spectrum", options=options)
    for view, options in VIEWS.items()
    for kind in ("base", "ToST")
    for seed in ALL_SEEDS
}
CLAIMS = (
    Claim(
        says="Along the top eigenvector, the test loss rises less with ToST",
        quote="Our methods present better weight smoothness around the achieved local minima",
        source="section 4.2",
        margin=flatter_curve(("curve", "ToST"), ("curve", "base")),
        unit="nats",
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the change of the test loss, its mean and range over the seeds; the eigenvalues."""
    fig = style.new_figure(style.PAGE, 2.4)
    left, right = fig.subplots(1, 2, width_ratios=(2, 1))
    for kind in KINDS:
        label = "plain sparse" if kind == "base" else kind
        line = {"color": COLOURS[kind], "ls": LINES[kind], "label": label}
        plot_curve(left, results, ("curve", kind), band=0.12, **line)
    left.set(xlabel="distance along the top eigenvector", ylabel="change of the test loss")
    if left.lines:
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=6, columnspacing=1.2)
    _plot_eigenvalues(right, results)
    return fig


def _plot_eigenvalues(ax: Axes, results: Results) -> None:
    """Plot a point for each seed, over live weights (filled) and over all weights (hollow)."""
    for view, marker, shift, label in (
        ("live", "o", -0.12, "live weights"),
        ("dense", "s", 0.12, "all weights"),
    ):
        for x, kind in enumerate(("base", "ToST")):
            look: dict[str, Any] = {"color": COLOURS[kind], "markersize": 4}
            if view == "dense":
                look["markerfacecolor"] = "white"
            for seed, spectrum in by_seed(results, view, kind).items():
                position = x + shift + 0.04 * (seed - 1)
                ax.plot(position, spectrum.eigenvalues[0], marker, **look)
        face = "black" if view == "live" else "white"
        ax.plot([], [], marker, color="black", markerfacecolor=face, markersize=4, label=label)
    ax.set_xticks(range(2), ["plain sparse", "ToST"])
    ax.set(xlim=(-0.5, 1.5), ylabel="top Hessian eigenvalue", yscale="log")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
