"""ToST, Figure 5: parametric Swish, x sigmoid(beta x), for growing beta.

The paper's claim: it becomes ReLU as beta grows. At beta = 0 it is x / 2, not the identity as the
paper's text says. From 1 on, the betas are among those that GSw takes during training.
"""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from figures.claims import Claim
from figures.measurement import Results
from figures.scales import Scale
from figures.tost.fig03 import activation
from sparsediag.plotting import style
from training.tweaks.ghosts import GhostNeurons

BETAS = (0.0, 1.0, 1.5, 2.5, 5.0, GhostNeurons().last_beta, np.inf)


def swish(beta: float, x: np.ndarray) -> np.ndarray:
    """Return parametric Swish, from beta = 1 on as computed by the layer that is trained."""
    return activation(1 / beta, x)[0] if beta >= 1 else x / (1 + np.exp(-beta * x))


def convergence(results: Results) -> dict[int, float]:
    """Return log10 of the factor by which the largest distance to ReLU falls with each beta."""
    x = np.linspace(-5, 5, 1001)
    gaps = [np.abs(swish(beta, x) - swish(np.inf, x)).max() for beta in BETAS[1:-1]]
    return dict(enumerate(-np.diff(np.log10(gaps))))


def identity_error(results: Results) -> dict[int, float]:
    """Return minus the relative distance of beta = 0 from the identity, up to rounding."""
    x = np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0])
    return dict(enumerate(1e-6 - np.abs(swish(0, x) / x - 1)))


CLAIMS = (
    Claim(
        says="Parametric Swish approaches ReLU as beta grows",
        quote="we gradually increase the β value of GSw, leading to be alike ReLU",
        source="section 2.2",
        margin=convergence,
        unit="ratio (log10)",
        at_least=0,
        exact=True,
    ),
    Claim(
        says="At beta = 0 parametric Swish is the identity",
        quote="PSwish transitions from identity function for β = 0, to ReLU for β = ∞",
        source="section 2.2",
        margin=identity_error,
        unit="relative distance",
        exact=True,
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw a curve for each beta, from light to dark; the one for beta = 0 is dotted."""
    fig = style.new_figure(style.COLUMN, 2.4)
    ax = fig.add_subplot()
    x = np.linspace(-3, 2.5, 401)
    shades = colormaps["viridis_r"](np.linspace(0.1, 1, len(BETAS)))
    names = {0: "β = 0 (x / 2)", np.inf: "β = ∞ (ReLU)"}
    for beta, shade in zip(BETAS, shades, strict=True):
        line, colour = ("-", shade) if beta else (":", "#777777")
        label = names.get(beta, f"β = {beta:g}")
        ax.plot(x, swish(beta, x), line, color=colour, label=label)
    ax.set(xlabel="x", ylabel="x · sigmoid(βx)")
    ax.legend(loc="upper left", labelspacing=0.25)
    return fig
