"""Gradient flow: how much gradient reaches the live weights (Tessera et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsediag.mask import prunable
from sparsediag.problem import Problem
from sparsediag.result import Result, source

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, eq=False)
class Gradflow(Result):
    """Norms of the gradient on the live weights of every layer.

    Attributes:
        names: The layers: the masked weights, or all that a mask could cover.
        flow: |m * dL/dw| of each layer, (layers,).
        per_weight: The same over the square root of the layer's live weights, (layers,).
        weight_norm: |w| of each layer; with batch norm the gradient scales as 1 / |w|, (layers,).
        mean: Effective gradient flow: the mean of `flow` over the layers.
        mean_per_weight: The mean of `per_weight`.
    """

    names: list[str]
    flow: np.ndarray
    per_weight: np.ndarray
    weight_norm: np.ndarray
    mean: float
    mean_per_weight: float

    def table(self) -> list[dict[str, Any]]:
        """One row a layer, and the mean."""
        rows = [
            {"layer": n, "flow": f"{f:.4g}", "per weight": f"{p:.4g}", "|w|": f"{w:.4g}"}
            for n, f, p, w in zip(
                self.names, self.flow, self.per_weight, self.weight_norm, strict=True
            )
        ]
        mean = {"flow": f"{self.mean:.4g}", "per weight": f"{self.mean_per_weight:.4g}", "|w|": ""}
        return [*rows, {"layer": "mean", **mean}]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Gradient norm over depth."""
        from sparsediag import plotting

        ax = ax or plotting.axes()
        depth = np.arange(len(self.names))
        ax.bar(depth, self.flow, color=plotting.COLOURS[0], width=0.7)
        ax.axhline(self.mean, color="black", lw=0.8, ls="--", label=f"mean {self.mean:.3g}")
        ax.set_xticks(depth, [n.removesuffix(".weight") for n in self.names], rotation=90)
        ax.set(ylabel="gradient norm on live weights")
        ax.legend()
        return ax


def gradflow(problem: Problem) -> Gradflow:
    """Gradient norms of the live weights, layer by layer; biases and norms are left out.

    Two means over the L layers are given: (1/L) sum |m * dL/dw|, and the same with each layer's
    norm over the square root of its number of live weights (the sources differ; see Tessera et
    al., 2021, Effective Gradient Flow with p = 2).

    Args:
        problem: The loss; with batch_norm="train" its gradient is that of a training step.

    Raises:
        ValueError: If no convolution or linear layer is trainable.

    >>> import torch
    >>> from torch import nn
    >>> net = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(net.weight, 3.0)
    >>> gradflow(Problem(net, [(torch.ones(1, 1), torch.ones(1, 1))], loss=nn.MSELoss())).mean
    4.0
    """
    names = list(problem.mask or prunable(problem.net))
    gradient, weights = problem.split(problem.gradient()), problem.split(problem.weights)
    names = [name for name in names if name in gradient]
    if not names:
        raise ValueError("no convolution or linear layer is trainable, so there is no flow to show")
    flow = np.array([float(gradient[n].double().norm()) for n in names])
    counts = problem.live.counts()
    alive = np.array([max(counts[n], 1) for n in names])
    per_weight = flow / np.sqrt(alive)
    return Gradflow(
        names=names,
        flow=flow,
        per_weight=per_weight,
        weight_norm=np.array([float(weights[n].double().norm()) for n in names]),
        mean=float(flow.mean()),
        mean_per_weight=float(per_weight.mean()),
        source=source(problem),
    )
