"""Lottery, Figure 10: the test loss along the top Hessian eigenvector of the training loss.

The paper's claim: with the tweaks of architecture and training, the loss rises less around the
minimum than with vanilla retraining. Thick lines are means over the seeds; the bands of vanilla and
AT+TRT show the range of the seeds.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures.claims import Claim
from figures.loss_surfaces import flatter_curve, plot_curve
from figures.lottery.runs import run
from figures.measurement import ALL_SEEDS, Measurement, Results
from figures.scales import Scale
from sparsediag.plotting import style

LINE_STYLES = {  # colour and line
    "vanilla": ("sparse", "-"),
    "skip": ("GSk", "--"),
    "Swish": ("Swish", "--"),
    "LS": ("LS", "-."),
    "LRsI": ("LRsI", "-."),
    "AT+TRT": ("ToST", "-"),
}
MEASUREMENTS = {
    (kind, seed): Measurement.along_top_eigenvector(run(kind, seed=seed))
    for kind in LINE_STYLES
    for seed in ALL_SEEDS
}
CLAIMS = (
    Claim(
        says="Along the top eigenvector, the test loss rises less with AT+TRT",
        quote="Our methods present better around the achieved local minima, which suggests "
        "improved generalization",
        source="section 4.6",
        margin=flatter_curve(("AT+TRT",), ("vanilla",)),
        unit="nats",
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the change of the test loss over the distance."""
    fig = style.new_figure()
    ax = fig.add_subplot()
    for kind, (colour, line) in LINE_STYLES.items():
        thick = kind in ("vanilla", "AT+TRT")
        plot_curve(
            ax, results, (kind,), band=0.15 if thick else 0, color=style.COLOUR_OF[colour], ls=line,
            label=kind, lw=1.6 if thick else 1, zorder=3 if thick else 2,
        )  # fmt: skip
    ax.set(xlabel="distance along the top eigenvector", ylabel="change of the test loss")
    fig.legend(loc="outside upper center", ncols=3, columnspacing=1.5)
    return fig
