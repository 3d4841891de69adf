"""Gradient flow: norms of the gradient on live, dead and regrown weights, layer by layer.

Tessera et al. (2021) measure it on live weights; RigL (Evci et al., 2020) regrows dead weights
where it is largest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sparsediag.checkpoint import mask_file
from sparsediag.core.coordinates import accumulate
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.progress import track
from sparsediag.core.prunable import weight_matrices
from sparsediag.curvature.finite_differences import DifferenceCheck
from sparsediag.diagnostics.result import Result, source, table_rows
from sparsediag.diagnostics.traits import History, InReport, Traits, diagnostic

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, eq=False)
class Gradflow(Result):
    """Norms of the gradient g = dL/dw on the live, dead and regrown weights of every layer.

    Attributes:
        names: The layers: the masked weights; without a mask, all weights that one could cover, and
            those of recurrent and attention modules.
        flow: |m * g| over the live weights of each layer, (layers,).
        per_weight: `flow` / sqrt(number of live weights), (layers,).
        weight_norm: |w| of each layer, (layers,); under batch norm the gradient scales as 1 / |w|.
        counts: Number of live weights, (layers,).
        dead_flow: |(1 - m) * g|, the gradient of the masked network with respect to the weights
            that are held at 0, (layers,).
        dead_per_weight: `dead_flow` / sqrt(number of dead weights); NaN if all are live, (layers,).
        dead_counts: Number of dead weights, (layers,).
        regrown_flow: |g| over live weights that were dead in `previous_mask`, (layers,).
        regrown_per_weight: `regrown_flow` / sqrt(their number); NaN if there is none, (layers,).
        regrown_counts: Number of regrown weights, (layers,).
        mean: Effective gradient flow: the mean of `flow` over the layers.
        mean_per_weight: The mean of `per_weight` over the layers.
        doubts: Reasons to doubt the gradient itself, one line each.
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
    doubts: list[str] = field(default_factory=list)

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each layer, and their mean."""
        columns = {"live |g|": self.flow, "live |g|/√n": self.per_weight}
        if self.dead_counts.any():
            columns |= {"dead |g|": self.dead_flow, "dead |g|/√n": self.dead_per_weight}
        if self.regrown_counts.any():
            columns |= {
                "regrown |g|": self.regrown_flow,
                "regrown |g|/√n": self.regrown_per_weight,
            }
        return table_rows(
            {"layer": ([*self.names, "mean"], "")}
            | {head: ([*values, np.nanmean(values)], ".4g") for head, values in columns.items()}
            | {"|w|": ([*self.weight_norm, np.nan], ".4g")}
        )

    def remarks(self) -> list[str]:
        """Return the doubts."""
        return [f"doubt: {line}" for line in self.doubts]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the gradient norm over the root of the number of weights, a row a layer."""
        from sparsediag.plotting import layers

        series = {
            "live": (self.per_weight, "o"),
            "dead": (self.dead_per_weight, "x"),
            "regrown": (self.regrown_per_weight, "s"),
        }
        ax = layers.plot_layers(self.names, series, ax)
        mean = self.mean_per_weight
        ax.axvline(mean, color="black", lw=0.8, ls="--", label=f"mean of live weights {mean:.2g}")
        layers.set_log_scale(ax, "x")
        ax.set_xlabel("gradient norm / √(number of weights)")
        layers.add_legend(ax)
        return ax


@diagnostic(
    Traits(
        history=History(
            fields={
                "per_weight": "per weight",
                "dead_per_weight": "per dead",
                "regrown_per_weight": "per regrown",
                "flow": "flow",
                "dead_flow": "of the dead",
                "regrown_flow": "of the regrown",
                "weight_norm": "|w|",
            },
            ylabel="norm / √weights",
        ),
        report=InReport(cost=lambda points, top: 3),
    )
)
def gradflow(
    problem: Problem,
    *,
    previous_mask: Mask | str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Gradflow:
    """Measure the norm of the gradient on the weights of each layer, without biases and norms.

    The effective gradient flow (Tessera et al., 2021, with p = 2) is the mean over the L layers,
    (1/L) sum |m * dL/dw|. Since sources differ, the mean with each layer's norm divided by the
    square root of its number of live weights is given too.

    Args:
        problem: The loss; with batch_norm="train" its gradient is that of a training step.
        previous_mask: An earlier mask of the same network, or its file: weights that were dead in
            it and are live now count as regrown. Weights that it does not cover were live.
        progress: Called as `progress(batches done, all batches)`.

    Returns:
        One norm for each layer, of its live, dead and regrown weights.

    Raises:
        ValueError: If no convolution or linear layer is trainable, or `previous_mask` does not fit.

    >>> from torch import nn
    >>> net = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(net.weight, 3.0)
    >>> gradflow(Problem(net, [(torch.ones(1, 1), torch.ones(1, 1))], loss=nn.MSELoss())).mean
    4.0
    """
    if isinstance(previous_mask, str | Path):
        previous_mask = mask_file.load(previous_mask, weights=dict(problem.net.named_parameters()))
    if previous_mask:
        previous_mask.check(problem.net)
    weights = problem.split(problem.weights)
    names = [name for name in problem.mask or weight_matrices(problem.net) if name in weights]
    if not names:
        raise ValueError("no convolution or linear layer is trainable; need at least one")
    gradient = all_gradients(problem, progress)
    norms = group_norms({name: gradient[name] for name in names}, problem.mask, previous_mask)
    flow, counts = norms["live"]
    dead_flow, dead_counts = norms["dead"]
    regrown_flow, regrown_counts = norms["regrown"]
    options = {"previous_mask": previous_mask.digest} if previous_mask else {}
    mean, mean_per_weight = mean_flows(flow, counts)
    return Gradflow(
        names=names,
        flow=flow,
        per_weight=flow / np.sqrt(np.maximum(counts, 1)),
        weight_norm=np.array([float(weights[n].double().norm()) for n in names]),
        counts=counts,
        dead_flow=dead_flow,
        dead_per_weight=dead_flow / np.sqrt(np.where(dead_counts, dead_counts, np.nan)),
        dead_counts=dead_counts,
        regrown_flow=regrown_flow,
        regrown_per_weight=regrown_flow / np.sqrt(np.where(regrown_counts, regrown_counts, np.nan)),
        regrown_counts=regrown_counts,
        mean=mean,
        mean_per_weight=mean_per_weight,
        doubts=[*DifferenceCheck(problem).slope_doubts(), *problem.doubts],
        source=source(problem, **options),
    )


def mean_flows(flow: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Return the effective gradient flow, and with each norm over the root of its live weights.

    Args:
        flow: Norm of the gradient on the live weights of each layer, (layers,).
        counts: Number of live weights, (layers,).
    """
    return float(flow.mean()), float((flow / np.sqrt(np.maximum(counts, 1))).mean())


def all_gradients(
    problem: Problem, progress: Callable[[int, int], None] | None = None
) -> dict[str, Tensor]:
    """Return the gradient of the masked network for all weights by name, dead ones too."""
    weights = {n: w.detach().requires_grad_() for n, w in problem.split(problem.weights).items()}
    total, leaves = None, list(weights.values())
    with problem.evaluation_mode():
        for batch, share in zip(
            track(list(problem.batches), progress), problem.shares(), strict=True
        ):
            if share:
                total = accumulate(total, problem.batch_loss(batch).gradient(leaves), share)
    return dict(zip(weights, total or (), strict=True))


def group_norms(
    tensors: Mapping[str, Tensor], mask: Mask | None, previous_mask: Mask | None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the norm of each tensor on groups of weights, and their numbers, (layers,) each.

    The groups are "live" and "dead" weights, and of the live ones those that an earlier mask had
    too ("kept"), and the others ("regrown").

    Args:
        tensors: A number for each weight, by name of the layer.
        mask: The live weights; None, and layers that it does not cover, for all.
        previous_mask: The earlier mask, likewise.
    """
    live = {name: _live(mask, name, t) for name, t in tensors.items()}
    earlier = {name: _live(previous_mask, name, t) for name, t in tensors.items()}
    groups = {
        "live": live,
        "dead": {name: ~m for name, m in live.items()},
        "kept": {name: m & earlier[name] for name, m in live.items()},
        "regrown": {name: m & ~earlier[name] for name, m in live.items()},
    }
    return {group: _norms(tensors, chosen) for group, chosen in groups.items()}


def _live(mask: Mask | None, name: str, like: Tensor) -> Tensor:
    """Return the mask of a weight on the device of `like`; all True if no mask covers it."""
    if mask and name in mask:
        return mask[name].to(like.device)
    return torch.ones_like(like, dtype=torch.bool)


def _norms(
    tensors: Mapping[str, Tensor], chosen: Mapping[str, Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the norm of each tensor on the chosen weights, and their number."""
    norms = []
    for name, m in chosen.items():
        wide = torch.promote_types(tensors[name].dtype, torch.float64)  # or a complex one
        norms.append(float(tensors[name].masked_fill(~m, 0).to(wide).norm()))
    return np.array(norms), np.array([int(m.sum()) for m in chosen.values()])
