"""ToST, Figure 3: ReLU and Swish (parametric Swish with beta = 1), and their derivatives.

The paper's point: the derivative of ReLU jumps at zero and is zero below it; that of Swish is
smooth, and small negative inputs have a gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from figures.claims import Claim
from figures.measurement import Results
from figures.scales import Scale
from sparsediag.models import GhostReLU
from sparsediag.plotting import style

STRENGTHS = {"ReLU": 0.0, "Swish": 1.0}


def activation(strength: float, at: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the activation and its derivative, computed by the layer that is trained."""
    layer = GhostReLU()
    layer.fade(strength)
    x = torch.as_tensor(at, dtype=torch.float64).requires_grad_()
    y = layer(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    return y.detach().numpy(), slope.numpy()


def jumps(results: Results) -> dict[int, float]:
    """Return how much more ReLU's derivative changes than Swish's over steps across zero."""
    jump = {}
    for name, strength in STRENGTHS.items():
        ends = [activation(strength, [-h, h])[1] for h in np.geomspace(1e-3, 1, 7) / 2]
        jump[name] = [right - left for left, right in ends]
    return dict(enumerate(np.subtract(jump["ReLU"], jump["Swish"])))


CLAIMS = (
    Claim(
        says="The derivative of ReLU jumps at zero; that of Swish does not",
        quote="the gradient of ReLU changes suddenly around zero",
        source="section 2.2",
        margin=jumps,
        unit="slope",
        exact=True,
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the activation on the left and its derivative on the right."""
    fig = style.new_figure(style.COLUMN, 1.9)
    left, right = fig.subplots(1, 2)
    x = np.linspace(-5, 5, 401)
    for (label, strength), line in zip(STRENGTHS.items(), ("-", "--"), strict=True):
        y, slope = activation(strength, x)
        for ax, curve in ((left, y), (right, slope)):
            ax.plot(x, curve, line, color=style.COLOUR_OF[label], label=label)
    left.set(xlabel="x", ylabel="activation")
    right.set(xlabel="x", ylabel="derivative")
    left.legend()
    return fig
