"""Accuracies over density, as a table and as a figure: shared by the pipeline's four items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from figures import accuracy
from figures.measurement import Measurement, Results, history_grid
from figures.pipeline.runs import MANY_STEPS, NO_SIZE, TRAINING_FREE, run
from sparsediag.core.estimate import Estimate
from sparsediag.plotting import style
from sparsediag.plotting.accuracy import LineStyle, plot_curve
from sparsediag.plotting.style import COLOURS
from sparsediag.plotting.tables import Table

Paper = Mapping[str, Sequence[float]]
BEST = "training-free"  # the paper's name for the best of `TRAINING_FREE` at each density
BASELINES = (*TRAINING_FREE, "vanilla", "RigL")
EXTRA = (*TRAINING_FREE, MANY_STEPS, NO_SIZE)  # rows for which the paper has no numbers
EXTRA_DENSITIES = (0.1, 0.01, 0.001)  # densities of kinds that the paper does not have at all
LINE_STYLES = {
    BEST: LineStyle("#777777", "o", "--"),
    "vanilla": LineStyle(COLOURS[6], "s", "--"),
    "RigL": LineStyle(COLOURS[4], "^", "--"),
    MANY_STEPS: LineStyle("#777777", "v", ":"),
    "+ ZerO": LineStyle(COLOURS[0], "o", "-"),
    "+ Mask": LineStyle(COLOURS[1], "s", "-"),
    "+ ZerO, Mask": LineStyle(COLOURS[2], "^", "-"),
    NO_SIZE: LineStyle(COLOURS[2], "v", ":"),
    "+ ToST": LineStyle(COLOURS[5], "D", "-"),
    "+ ZerO, ToST": LineStyle(COLOURS[0], "P", "-."),
    "+ Mask, ToST": LineStyle(COLOURS[1], "X", "-."),
    "+ All": LineStyle(COLOURS[3], "*", "-."),
}


def measurements(
    paper: Paper, densities: Sequence[float], extra: Sequence[str], *, net: str
) -> dict[tuple[str, float, int], Measurement]:
    """Return the trainings of the paper's rows, and of extra kinds at whole powers of ten."""
    kinds = (*TRAINING_FREE, *(kind for kind in paper if kind != BEST))
    powers_of_ten = [density for density in densities if density in EXTRA_DENSITIES]
    return history_grid(run, kinds, densities, net=net) | history_grid(
        run, extra, powers_of_ten, net=net
    )


def estimate(results: Results, row: str, density: float) -> Estimate | None:
    """Return the accuracy in a row of the tables."""
    kinds = TRAINING_FREE if row == BEST else (row,)
    return accuracy.best_estimate(results, kinds, density)


def compression(density: float) -> str:
    """Return the density as the paper's compression, its negative decimal logarithm.

    >>> compression(0.1), compression(0.032)
    ('1', '1.5')
    """
    return f"{-math.log10(density):.2g}"


def table(results: Results, paper: Paper, densities: Sequence[float]) -> Table:
    """Return the paper's rows with ours beside them, then the extra rows.

    The first row gives the densities as compressions.
    """
    trained = accuracy.trained_densities(results, densities)
    compressions = [compression(density) for density in trained]
    rows: list[tuple[str, Sequence[str | float | None], Sequence[str | Estimate | None]]] = [
        ("compression, -log10 s", compressions, compressions)
    ]
    for row in (*paper, *EXTRA):
        here = [estimate(results, row, density) for density in trained]
        theirs = [paper[row][densities.index(d)] if row in paper else None for d in trained]
        if row in paper or any(here):
            name = f"{BEST}: {row}" if row in (*TRAINING_FREE, MANY_STEPS) else row
            rows.append((name, theirs, here))
    title = "test accuracy (%) at density s, the share of the weights that remain"
    columns = [f"{100 * density:g} %" for density in trained]
    return Table.paper_and_here(title, "training", columns, rows, number_format=".1f")


def draw(
    results: Results, paper: Paper, densities: Sequence[float], *, title: str, chance: float
) -> Figure:
    """Draw the paper's accuracies over density, and ours beside them.

    Args:
        results: By (kind, density, seed).
        paper: The paper's accuracies for each row, in the order of the densities.
        densities: The paper's densities.
        title: Title of our panel.
        chance: Accuracy of a network that has learned nothing.
    """
    fig = style.new_figure(style.PAGE, 2.7)
    theirs, ours = fig.subplots(1, 2, sharey=True)
    for row, numbers in paper.items():
        points = dict(zip(densities, map(Estimate, numbers), strict=True))
        plot_curve(theirs, points, row, LINE_STYLES[row], size=3.5)
    for row in (*paper, *(extra for extra in EXTRA if extra in LINE_STYLES)):
        if points := {d: e for d in densities if (e := estimate(results, row, d))}:
            plot_curve(ours, points, row, LINE_STYLES[row], size=3.5)
    theirs.axhline(chance, color="#bbbbbb", linewidth=0.6)
    for ax, name in ((theirs, "the paper"), (ours, title)):
        ax.set(title=name, xscale="log", xlabel=r"density (%) and compression $-\log_{10} s$")
        ax.set_xlim(1.25 * max(densities), 0.8 * min(densities))
        ax.set_xticks(densities, [f"{100 * d:g}\n{compression(d)}" for d in densities])
        ax.minorticks_off()
    theirs.set_ylabel("test accuracy (%)")
    curves = {bars.get_label(): bars for ax in (theirs, ours) for bars in ax.containers}
    rows = [row for row in LINE_STYLES if row in curves]
    fig.legend([curves[row] for row in rows], rows, loc="outside right center", handlelength=3)
    return fig
