"""ToST, Figure 3: ReLU and Swish (parametric Swish with beta = 1), and their derivatives.

The paper's point: the gradient of ReLU jumps at zero and is zero below it, that of Swish is
smooth and lets small negative inputs through.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure

from figures.need import Need
from sparsediag import plotting
from sparsediag.models import GhostReLU

NEEDS: dict[str, Need] = {}


def curves(strength: float, reach: float = 5.0) -> tuple[Any, Any, Any]:
    """x, the activation and its derivative, from the layer that nets are built with."""
    layer = GhostReLU()
    layer.fade(strength)
    x = torch.linspace(-reach, reach, 401, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    return x.detach().numpy(), y.detach().numpy(), slope.numpy()


def draw(results: dict[str, Any]) -> Figure:
    """Activation on the left, derivative on the right."""
    fig = plotting.figure(plotting.COLUMN, 1.9)
    left, right = fig.subplots(1, 2)
    for label, strength in {"ReLU": 0.0, "Swish": 1.0}.items():
        x, y, slope = curves(strength)
        left.plot(x, y, color=plotting.COLOUR_OF[label], label=label)
        right.plot(x, slope, color=plotting.COLOUR_OF[label], label=label)
    left.set(xlabel="x", ylabel="activation")
    right.set(xlabel="x", ylabel="derivative")
    left.legend()
    return fig
