"""ToST, Figure 5: parametric Swish, x sigmoid(beta x), for growing beta.

The paper's point: it turns from Swish into ReLU as beta grows. (At beta = 0 it is x / 2, not the
identity that the paper's text names.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from figures.need import Need
from figures.tost.fig03 import curves
from sparsediag import plotting

NEEDS: dict[str, Need] = {}

BETAS = (1.0, 1.5, 2.5, 5.0, 10.0, np.inf)  # from the first to the last epoch of GSw, then ReLU


def draw(results: dict[str, Any]) -> Figure:
    """One curve a beta, from light to dark."""
    fig = plotting.figure()
    ax = fig.add_subplot()
    shades = colormaps["viridis_r"](np.linspace(0.15, 1, len(BETAS)))
    for beta, shade in zip(BETAS, shades, strict=True):
        x, y, _ = curves(1 / beta, reach=3.0)
        label = f"β = {beta:g}" if np.isfinite(beta) else "β = ∞ (ReLU)"
        ax.plot(x, y, color=shade, label=label)
    ax.set(xlabel="x", ylabel="x · sigmoid(βx)")
    ax.legend()
    return fig
