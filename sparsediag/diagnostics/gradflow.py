"""Gradient flow: how much gradient reaches the live weights, and how much the dead ones would get.

Tessera et al. (2021) measure it on live weights; RigL (Evci et al., 2020) revives dead ones by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import grad

from sparsediag.checkpoint import mask_file
from sparsediag.core.coordinates import accumulate
from sparsediag.core.evaluation import full_precision
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import matrices
from sparsediag.diagnostics.result import Result, source

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, eq=False)
class Gradflow(Result):
    """Norms of the gradient on the live, the dead and the regrown weights of every layer.

    Attributes:
        names: The layers: the masked weights; without a mask all that one could cover, and those of
            recurrent and attention modules.
        flow: |m * dL/dw| of each layer, (layers,).
        per_weight: The same over the square root of the layer's live weights, (layers,).
        weight_norm: |w| of each layer; with batch norm the gradient scales as 1 / |w|, (layers,).
        counts: Live weights of each layer, (layers,).
        dead_flow: |(1 - m) * dL/dw|: the gradient of the same masked net with respect to the
            weights that are held at 0, (layers,).
        dead_per_weight: The same over the square root of their number; nan where all live.
        dead_counts: Their number, (layers,).
        regrown_flow: As `flow`, of the weights that live now and were dead in the mask `before`.
        regrown_per_weight: The same over the square root of their number; nan where there is none.
        regrown_counts: Their number, (layers,).
        mean: Effective gradient flow: the mean of `flow` over the layers.
        mean_per_weight: The mean of `per_weight`.
    """

    names: list[str]
    flow: np.ndarray
    per_weight: np.ndarray
    weight_norm: np.ndarray
    counts: np.ndarray
    dead_flow: np.ndarray
    dead_per_weight: np.ndarray
    dead_counts: np.ndarray
    regrown_flow: np.ndarray
    regrown_per_weight: np.ndarray
    regrown_counts: np.ndarray
    mean: float
    mean_per_weight: float

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each layer, and the mean."""
        columns = {"flow": self.flow, "per weight": self.per_weight}
        if self.dead_counts.any():
            columns |= {"of the dead": self.dead_flow, "per dead weight": self.dead_per_weight}
        if self.regrown_counts.any():
            columns |= {"regrown": self.regrown_flow, "per regrown weight": self.regrown_per_weight}
        means = {head: _told(np.nanmean(values)) for head, values in columns.items()}
        rows = [
            {"layer": name}
            | {head: _told(values[i]) for head, values in columns.items()}
            | {"|w|": _told(norm)}
            for i, (name, norm) in enumerate(zip(self.names, self.weight_norm, strict=True))
        ]
        return [*rows, {"layer": "mean", **means, "|w|": ""}]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Gradient norm over the root of the number of weights, a row a layer."""
        from sparsediag.plotting import layers, style

        ax = ax or layers.axes(self.names)
        rows = np.arange(len(self.names))
        kinds = {
            "live": (self.per_weight, "o", "full"),
            "dead": (self.dead_per_weight, "x", "none"),
            "regrown": (self.regrown_per_weight, "s", "none"),
        }
        for (label, (size, mark, fill)), colour in zip(kinds.items(), style.COLOURS, strict=False):
            if np.isfinite(size).any():
                ax.plot(size, rows, mark, ms=4, fillstyle=fill, color=colour, label=label)
        mean = self.mean_per_weight
        ax.axvline(mean, color="black", lw=0.8, ls="--", label=f"mean of the live {mean:.2g}")
        layers.logarithmic(ax, "x")
        layers.label(ax, self.names)
        ax.set_xlabel("gradient norm / √weights")
        layers.legend(ax)
        return ax


@full_precision()
def gradflow(
    problem: Problem,
    *,
    before: Mask | str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Gradflow:
    """Gradient norms of the weights, layer by layer; biases and norms are left out.

    Two means over the L layers are given: (1/L) sum |m * dL/dw|, and the same with each layer's
    norm over the square root of its number of live weights (the sources differ; see Tessera et
    al., 2021, Effective Gradient Flow with p = 2).

    Args:
        problem: The loss; with batch_norm="train" its gradient is that of a training step.
        before: An earlier mask of the same net, or a file that holds one: what was dead in it and
            lives now has regrown. A weight that it leaves out was alive.
        progress: Called as `progress(batches, all)`.

    Raises:
        ValueError: If no convolution or linear layer is trainable, or `before` does not fit.

    >>> from torch import nn
    >>> net = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(net.weight, 3.0)
    >>> gradflow(Problem(net, [(torch.ones(1, 1), torch.ones(1, 1))], loss=nn.MSELoss())).mean
    4.0
    """
    earlier = mask_file.load(before) if isinstance(before, str | Path) else before
    if earlier:
        earlier.check(problem.net)
    weights = problem.split(problem.weights)
    names = [name for name in problem.mask or matrices(problem.net) if name in weights]
    if not names:
        raise ValueError("no convolution or linear layer is trainable, so there is no flow to show")
    gradient = _gradient(problem, progress)
    parts: dict[str, list[tuple[float, int]]] = {"live": [], "dead": [], "regrown": []}
    for name in names:
        slope = gradient[name]
        alive = _alive(problem.mask, name, slope)
        reborn = alive & ~_alive(earlier, name, slope)
        for kind, where in (("live", alive), ("dead", ~alive), ("regrown", reborn)):
            norm = float(slope.masked_fill(~where, 0).double().norm())
            parts[kind].append((norm, int(where.sum())))
    (flow, counts), (dead, dead_counts), (regrown, regrown_counts) = (
        (np.array([norm for norm, _ in part]), np.array([number for _, number in part]))
        for part in parts.values()
    )
    per_weight = flow / np.sqrt(np.maximum(counts, 1))
    return Gradflow(
        names=names,
        flow=flow,
        per_weight=per_weight,
        weight_norm=np.array([float(weights[n].double().norm()) for n in names]),
        counts=counts,
        dead_flow=dead,
        dead_per_weight=dead / np.sqrt(np.where(dead_counts, dead_counts, np.nan)),
        dead_counts=dead_counts,
        regrown_flow=regrown,
        regrown_per_weight=regrown / np.sqrt(np.where(regrown_counts, regrown_counts, np.nan)),
        regrown_counts=regrown_counts,
        mean=float(flow.mean()),
        mean_per_weight=float(per_weight.mean()),
        source=source(problem, **({"before": earlier.digest} if earlier else {})),
    )


def _gradient(problem: Problem, progress: Callable[[int, int], None] | None) -> dict[str, Tensor]:
    """The gradient of the masked net for all weights by name, those held at 0 too."""
    weights = {n: w.detach().requires_grad_() for n, w in problem.split(problem.weights).items()}
    total, leaves, batches = None, list(weights.values()), list(problem.batches)
    with problem.modes(), torch.enable_grad():
        for i, batch in enumerate(batches):
            way = problem.batch_loss(batch)
            loss = way.loss(way.outputs(leaves))
            total = accumulate(total, grad(loss, leaves, materialize_grads=True), way.samples)
            if progress:
                progress(i + 1, len(batches))
    return {n: g / problem.samples for n, g in zip(weights, total or (), strict=True)}


def _alive(mask: Mask | None, name: str, like: Tensor) -> Tensor:
    """The mask of one weight; what it leaves out is alive."""
    if mask and name in mask:
        return mask[name].to(like.device)
    return torch.ones_like(like, dtype=torch.bool)


def _told(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4g}"
