"""Shared by the pipeline's tables and figures: needs, the best of several, rows and lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import accuracy
from figures.estimate import Estimate
from figures.measurement import Need
from figures.pipeline._runs import FREE, MANY_STEPS, NO_SIZE, run
from figures.tables import Table
from sparsediag.plotting import style as plotting

Results = Mapping[Any, Any]
Paper = Mapping[str, Sequence[float]]
BEST = "training-free"  # the paper's name for the best of `FREE` at each density
BASELINES = (*FREE, "vanilla", "RigL")
EXTRA = (*FREE, MANY_STEPS, NO_SIZE)  # the paper gives no numbers for these
BEYOND = (0.1, 0.01, 0.001)  # densities of what the paper does not have at all
LOOK = {
    BEST: ("#777777", "o", "--"),
    "vanilla": (plotting.COLOURS[6], "s", "--"),
    "RigL": (plotting.COLOURS[4], "^", "--"),
    MANY_STEPS: ("#777777", "v", ":"),
    "+ ZerO": (plotting.COLOURS[0], "o", "-"),
    "+ Mask": (plotting.COLOURS[1], "s", "-"),
    "+ ZerO, Mask": (plotting.COLOURS[2], "^", "-"),
    NO_SIZE: (plotting.COLOURS[2], "v", ":"),
    "+ ToST": (plotting.COLOURS[5], "D", "-"),
    "+ ZerO, ToST": (plotting.COLOURS[0], "P", "-."),
    "+ Mask, ToST": (plotting.COLOURS[1], "X", "-."),
    "+ All": (plotting.COLOURS[3], "*", "-."),
}


def needs(
    paper: Paper, densities: Sequence[float], beyond: Sequence[str], *, net: str
) -> dict[tuple[str, float, int], Need]:
    """The paper's rows at its densities, and others at whole powers of ten."""
    cells = [(kind, d) for kind in (*FREE, *paper) if kind != BEST for d in densities]
    cells += [(kind, d) for kind in beyond for d in densities if d in BEYOND]
    return {
        (kind, d, seed): Need(run(kind, d, seed, net=net)) for kind, d in cells for seed in range(3)
    }


def estimate(results: Results, row: str, density: float) -> Estimate | None:
    """Return what stands in a row of the tables."""
    return accuracy.best(results, FREE if row == BEST else (row,), density)


def compression(density: float) -> str:
    """The paper's other word for a density: its negative decimal logarithm.

    >>> compression(0.1), compression(0.032)
    ('1', '1.5')
    """
    return f"{-math.log10(density):.2g}"


def table(results: Results, paper: Paper, densities: Sequence[float]) -> Table:
    """The paper's rows with ours beside, then those that it does not tell apart or does not have.

    The first row gives the densities as compressions.
    """
    shares = [d for d in densities if any(d == density for _, density, _ in results)]
    heads = [f"{100 * d:g} %, {who}" for d in shares for who in ("paper", "here")]
    rows: list[tuple[str | float | Estimate | None, ...]] = [
        ("compression, -log10 s", *(compression(d) for d in shares for _ in range(2)))
    ]
    for row in (*paper, *EXTRA):
        here = [estimate(results, row, d) for d in shares]
        beside = [paper[row][densities.index(d)] if row in paper else None for d in shares]
        if row in paper or any(here):
            named = f"{BEST}: {row}" if row in (*FREE, MANY_STEPS) else row
            rows.append((named, *(c for pair in zip(beside, here, strict=True) for c in pair)))
    title = "test accuracy (%) at density s, the share of the weights that is left"
    return Table(title, ("training", *heads), tuple(rows), form=".1f")


def draw(
    results: Results, paper: Paper, densities: Sequence[float], *, title: str, chance: float
) -> Figure:
    """The paper's accuracies over density, and ours beside them."""
    fig = plotting.new_figure(plotting.PAGE, 2.7)
    theirs, ours = fig.subplots(1, 2, sharey=True)
    for row, numbers in paper.items():
        _line(theirs, row, densities, [Estimate(n) for n in numbers])
    for row in (*paper, *(extra for extra in EXTRA if extra in LOOK)):
        found = {d: e for d in densities if (e := estimate(results, row, d))}
        if found:
            _line(ours, row, list(found), list(found.values()))
    theirs.axhline(chance, color="#bbbbbb", linewidth=0.6)
    for ax, told in ((theirs, "the paper"), (ours, title)):
        ax.set(title=told, xscale="log", xlabel=r"density (%), and compression, $-\log_{10}$ of it")
        ax.set_xlim(1.25 * max(densities), 0.8 * min(densities))
        ax.set_xticks(densities, [f"{100 * d:g}\n{compression(d)}" for d in densities])
        ax.minorticks_off()
    theirs.set_ylabel("test accuracy (%)")
    shown = {line.get_label(): line for ax in (theirs, ours) for line in ax.containers}
    named = [row for row in LOOK if row in shown]
    fig.legend([shown[row] for row in named], named, loc="outside right center", handlelength=3)
    return fig


def _line(ax: Axes, row: str, densities: Sequence[float], values: Sequence[Estimate]) -> None:
    """Draw a row over density, with its intervals."""
    colour, marker, style = LOOK[row]
    half = [e.half if math.isfinite(e.half) else np.nan for e in values]
    ax.errorbar(
        densities, [e.mean for e in values], half, label=row, color=colour, marker=marker,
        linestyle=style, markersize=3.5, linewidth=1, elinewidth=0.6, capsize=1.5,
    )  # fmt: skip
