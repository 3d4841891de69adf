"""Lottery, Figure A12: accuracy and top Hessian eigenvalue through the training.

The paper's claims: AT+TRT starts at a higher top eigenvalue than vanilla retraining, ends at a
lower one, and tests 3.11 points better. Thick lines are the first seed, thin ones the others;
dotted lines are the drops of the learning rate, a cross is the best epoch on the validation
images. The bottom panel multiplies the eigenvalue by the squared norm of the weights: behind
batch norm, larger weights alone make smaller eigenvalues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from figures import accuracy, effect_sizes
from figures.claims import Claim, Results
from figures.lottery._runs import LEVELS, run
from figures.measurement import Need
from figures.scales import Scale
from sparsediag.plotting import style

SEEDS = 1
DENSITY = LEVELS[11]
COLOURS = {"vanilla": style.COLOUR_OF["sparse"], "AT+TRT": style.COLOUR_OF["ToST"]}
NEEDS = {
    (kind, DENSITY, seed): Need(run(kind, DENSITY, seed, recorded=True))
    for kind in COLOURS
    for seed in range(3)
}
Rows = Sequence[Mapping[str, Any]]


def accuracies(rows: Rows, part: str) -> np.ndarray:
    """Accuracy after every epoch, in per cent."""
    return 100 * np.array([row[f"{part}_accuracy"] for row in rows])


def eigenvalues(rows: Rows, *, scaled: bool = False) -> np.ndarray:
    """The top eigenvalue after every epoch, on request times |w|^2; NaN where not positive."""
    value = np.array([row["eigenvalue"] for row in rows])
    norm = np.array([row["weight_norm"] for row in rows])
    return np.where(value > 0, value * (norm**2 if scaled else 1), np.nan)


def drops(rows: Rows) -> list[int]:
    """Return how many epochs are trained at each drop of the learning rate."""
    return [1 + int(i) for i in np.flatnonzero(np.diff([row["lr"] for row in rows]))]


def initial(rows: Rows) -> slice:
    """The epochs before the first drop of the rate."""
    return slice(0, drops(rows)[0] if drops(rows) else len(rows))


def first(rows: Rows) -> slice:
    """The first twentieth of the training: 9 of the paper's 180 epochs."""
    return slice(0, max(1, len(rows) // 20))


def final(rows: Rows) -> slice:
    """The epochs after the last drop of the rate."""
    return slice(drops(rows)[-1] if drops(rows) else 0, len(rows))


def more(of: Callable[[Rows], np.ndarray], when: Callable[[Rows], slice]) -> Callable[..., Any]:
    """Return the excess of AT+TRT in a phase, the mean over its epochs, by seed."""

    def gaps(results: Results) -> list[float]:
        by = {kind: {s: r for (k, _, s), r in results.items() if k == kind} for kind in COLOURS}
        both = sorted(by["vanilla"].keys() & by["AT+TRT"].keys())
        mean = {
            (kind, seed): float(np.mean(of(by[kind][seed])[when(by[kind][seed])]))
            for kind in COLOURS
            for seed in both
        }
        return [mean["AT+TRT", seed] - mean["vanilla", seed] for seed in both]

    return gaps


CLAIMS = (
    Claim(
        says="AT+TRT improves the test accuracy at 91 % sparsity",
        quote="ultimately a significant improvement of +3.11% in test accuracy",
        source="section A1.2",
        margin=effect_sizes.gain("AT+TRT", "vanilla", DENSITY),
        paper=3.11,
        room=effect_sizes.room("vanilla", DENSITY),
    ),
    Claim(
        says="AT+TRT is ahead on the validation images before the learning rate drops",
        quote="our method possibly achieve higher train/val accuracy in initial phase of training "
        "(before learning rate scaling)",
        source="section A1.2",
        margin=more(lambda rows: accuracies(rows, "val"), initial),
    ),
    Claim(
        says="At the start of the training AT+TRT has the higher top eigenvalue",
        quote="in initial phase of sparse subnetwork training, our methods provide high push (high "
        "eigenvalue)",
        source="section A1.2",
        margin=more(lambda rows: np.log10(eigenvalues(rows)), first),
        unit="ratio (log10)",
    ),
    Claim(
        says="After the last drop of the rate, AT+TRT has the lower top eigenvalue",
        quote="during final stage of training, our proposed LTH have high low eigenvalue than "
        "vanilla-LTH",
        source="section A1.2",
        margin=more(lambda rows: -np.log10(eigenvalues(rows)), final),
        unit="ratio (log10)",
    ),
    Claim(
        says="After the last drop of the rate, AT+TRT has the lower top eigenvalue times squared "
        "norm of the weights",
        quote="which indicate the presence of high smoothness",
        source="section A1.2",
        margin=more(lambda rows: -np.log10(eigenvalues(rows, scaled=True)), final),
        unit="ratio (log10)",
    ),
)


def _accuracies(ax: Axes, kind: str, rows: Rows, *, thin: bool) -> None:
    epochs, colour = np.arange(1, len(rows) + 1), COLOURS[kind]
    seen = accuracies(rows, "val")
    if thin:
        ax.plot(epochs, seen, color=colour, lw=0.4, alpha=0.6)
        return
    ax.plot(epochs, accuracies(rows, "train"), "--", color=colour, lw=0.9)
    ax.plot(epochs, seen, color=colour)
    best = next(i for i, row in enumerate(rows) if row.get("best"))
    ax.plot(epochs[best], seen[best], "X", color=colour, mec="white", mew=0.5, ms=7, zorder=4)
    ax.axhline(accuracy.accuracy(rows), color=colour, lw=0.8, ls=(0, (6, 1, 1, 1)))


def draw(results: Results, scale: Scale) -> Figure:
    """Accuracy, eigenvalue, and the eigenvalue in units that ignore the weights' scale."""
    fig = style.new_figure(style.COLUMN, 4.6)
    top, middle, bottom = fig.subplots(3, 1, sharex=True, height_ratios=(1.3, 1, 1))
    seen: set[str] = set()
    for (kind, _, _), rows in sorted(results.items(), key=lambda pair: pair[0][2]):
        thin = kind in seen
        _accuracies(top, kind, rows, thin=thin)
        for ax, scaled in ((middle, False), (bottom, True)):
            ax.plot(
                np.arange(1, len(rows) + 1), eigenvalues(rows, scaled=scaled), color=COLOURS[kind],
                lw=0.4 if thin else 1.2, alpha=0.6 if thin else 1,
            )  # fmt: skip
        if not seen:
            for epoch in drops(rows):
                for ax in (top, middle, bottom):
                    ax.axvline(epoch + 0.5, color="#777777", lw=0.9, ls=":", zorder=0)
        seen.add(kind)
    for kind in COLOURS:
        if kind in seen:
            top.plot([], [], color=COLOURS[kind], label=kind)
    lines = {"validation": "-", "training": "--", "test, best epoch": (0, (6, 1, 1, 1))}
    for name, line in lines.items():
        top.plot([], [], color="#777777", lw=0.9, ls=line, label=name)
    fig.legend(loc="outside upper center", ncols=3, columnspacing=1.5)
    top.set_ylabel("accuracy (%)")
    middle.set(ylabel="top eigenvalue λ", yscale="log")
    bottom.set(xlabel="epoch", ylabel="λ · |w|²", yscale="log")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in (middle, bottom):
        ax.yaxis.set_minor_formatter(NullFormatter())
    fig.align_ylabels()
    return fig
