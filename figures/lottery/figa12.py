"""Lottery, Figure A12: accuracy and top Hessian eigenvalue during the training.

The paper's claims: AT+TRT starts with a higher top eigenvalue than vanilla retraining, ends with a
lower one, and has a 3.11 points higher test accuracy. Thick lines are the first seed, thin ones the
others; dotted lines are the drops of the learning rate, a cross is the best epoch on the validation
images. The bottom panel multiplies the eigenvalue by the squared norm of the weights: with batch
norm, larger weights alone make smaller eigenvalues.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from figures import accuracy, effect_sizes
from figures.claims import Claim
from figures.histories import (
    History,
    Row,
    drops,
    eigenvalue,
    log10,
    mark_drops,
    positive,
    scaled_eigenvalue,
)
from figures.lottery.runs import LEVELS, run
from figures.measurement import Results, by_seed, history_grid
from figures.scales import Scale
from sparsediag.plotting import style

DENSITY = LEVELS[11]
COLOURS = {"vanilla": style.COLOUR_OF["sparse"], "AT+TRT": style.COLOUR_OF["ToST"]}
MEASUREMENTS = history_grid(run, COLOURS, (DENSITY,), recorded=True)


def first_twentieth(history: History) -> History:
    """Return the first twentieth of the training: 9 of the paper's 180 epochs."""
    return history[: max(1, len(history) // 20)]


def after_last_drop(history: History) -> History:
    """Return the epochs after the last drop of the learning rate."""
    return history[max(drops(history), default=0) :]


def lead(
    series: Callable[[History], np.ndarray], phase: Callable[[History], History]
) -> effect_sizes.Margin:
    """Return AT+TRT minus vanilla, the mean of a series over a phase, by seed."""

    def margin(results: Results) -> dict[int, float]:
        tweaked, vanilla = (
            {
                seed: float(np.mean(series(phase(history))))
                for seed, history in by_seed(results, kind, DENSITY).items()
            }
            for kind in ("AT+TRT", "vanilla")
        )
        return effect_sizes.seed_differences(tweaked, vanilla)

    return margin


def accuracies(history: History, split: str) -> np.ndarray:
    """Return the accuracy after every epoch, in percent."""
    return 100 * np.array([row[f"{split}_accuracy"] for row in history])


CLAIMS = (
    Claim(
        says="AT+TRT improves a lottery ticket at 91 % sparsity",
        quote="ultimately a significant improvement of +3.11% in test accuracy",
        source="section A1.2",
        margin=effect_sizes.gain("AT+TRT", "vanilla", DENSITY),
        paper=3.11,
        max_gain=effect_sizes.max_gain("vanilla", DENSITY),
    ),
    Claim(
        says="At the start of training, AT+TRT has the higher top eigenvalue",
        quote="in initial phase of sparse subnetwork training, our methods provide high push (high "
        "eigenvalue)",
        source="section A1.2",
        margin=lead(lambda history: log10(history, eigenvalue), first_twentieth),
        unit="ratio (log10)",
    ),
    Claim(
        says="At the end of training, AT+TRT has the lower top eigenvalue",
        quote="during final stage of training, our proposed LTH have high low eigenvalue than "
        "vanilla-LTH",
        source="section A1.2",
        margin=lead(lambda history: -log10(history, eigenvalue), after_last_drop),
        unit="ratio (log10)",
    ),
)


def _plot_accuracies(ax: Axes, kind: str, history: History, *, thin: bool) -> None:
    epochs, colour = np.arange(1, len(history) + 1), COLOURS[kind]
    validation = accuracies(history, "val")
    if thin:
        ax.plot(epochs, validation, color=colour, lw=0.4, alpha=0.6)
        return
    ax.plot(epochs, accuracies(history, "train"), "--", color=colour, lw=0.9)
    ax.plot(epochs, validation, color=colour)
    best = next(i for i, row in enumerate(history) if row.get("best"))
    ax.plot(epochs[best], validation[best], "X", color=colour, mec="white", mew=0.5, ms=7, zorder=4)
    ax.axhline(accuracy.accuracy(history), color=colour, lw=0.8, ls=(0, (6, 1, 1, 1)))


def _plot_eigenvalues(
    ax: Axes, kind: str, history: History, value: Callable[[Row], float], *, thin: bool
) -> None:
    look: dict[str, Any] = {"lw": 0.4, "alpha": 0.6} if thin else {"lw": 1.2}
    ax.plot(np.arange(1, len(history) + 1), positive(history, value), color=COLOURS[kind], **look)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the accuracy, the eigenvalue, and the eigenvalue times the squared norm."""
    fig = style.new_figure(style.COLUMN, 4.6)
    top, middle, bottom = panels = fig.subplots(3, 1, sharex=True, height_ratios=(1.3, 1, 1))
    for kind in COLOURS:
        histories = list(by_seed(results, kind, DENSITY).values())
        for history in histories:
            thin = history is not histories[0]
            _plot_accuracies(top, kind, history, thin=thin)
            _plot_eigenvalues(middle, kind, history, eigenvalue, thin=thin)
            _plot_eigenvalues(bottom, kind, history, scaled_eigenvalue, thin=thin)
        if histories:
            top.plot([], [], color=COLOURS[kind], label=kind)
    for ax in panels:
        mark_drops(ax, next(iter(results.values())))
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
