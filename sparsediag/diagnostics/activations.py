"""Activations: how much of the signal is zero, block by block (ToST, Table 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsediag.models import GhostReLU
from sparsediag.problem import Problem
from sparsediag.result import Result, source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.Mish, nn.GELU, nn.Hardswish, nn.Tanh)


@dataclass(frozen=True, kw_only=True, eq=False)
class Activations(Result):
    """Shares of zeros in the output of every block, over all samples.

    Attributes:
        names: The blocks, in the order of the net.
        zeros: Share of outputs that are exactly 0, (blocks,).
        small: Share with |a| <= threshold, (blocks,).
        dead: Share of channels that are 0 at every place of every sample, (blocks,).
        stage_last: True for the last block of a stage: the layers of ToST, Table 1.
        threshold: What counts as small.
    """

    names: list[str]
    zeros: np.ndarray
    small: np.ndarray
    dead: np.ndarray
    stage_last: list[bool]
    threshold: float

    def table(self) -> list[dict[str, Any]]:
        """One row a block."""
        return [
            {
                "block": name + (" *" if last else ""),
                "exactly 0": f"{zero:.2%}",
                f"|a| <= {self.threshold:g}": f"{small:.2%}",
                "dead channels": f"{dead:.2%}",
            }
            for name, zero, small, dead, last in zip(
                self.names, self.zeros, self.small, self.dead, self.stage_last, strict=True
            )
        ]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Shares over depth; the last block of each stage is ringed."""
        from sparsediag import plotting

        ax = ax or plotting.axes()
        depth = np.arange(len(self.names))
        lines = {
            f"|a| ≤ {self.threshold:g}": self.small,
            "exactly 0": self.zeros,
            "dead channels": self.dead,
        }
        for (label, share), colour in zip(lines.items(), plotting.COLOURS, strict=False):
            ax.plot(depth, 100 * share, "o-", ms=3, color=colour, label=label)
        last = np.flatnonzero(self.stage_last)
        ax.plot(last, 100 * self.small[last], "o", ms=7, mfc="none", color="black")
        ax.set_xticks(depth, self.names, rotation=90)
        ax.set(ylabel="share of activations (%)", ylim=(-3, 103))
        ax.legend()
        return ax


def activations(
    problem: Problem,
    *,
    threshold: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> Activations:
    """Shares of zero and small activations after every block.

    The blocks of the built-in nets are their residual blocks or layers, after the addition. In
    any other net they are its activation layers.

    Args:
        problem: The net and the samples.
        threshold: |a| up to this counts as small; ToST's code uses 0.01 and calls it sparsity.
        progress: Called as `progress(batches, all)`.

    Raises:
        ValueError: If the net has no block and no activation layer to look at.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> _ = nn.init.zeros_(net[0].weight), nn.init.constant_(net[0].bias, -1.0)
    >>> activations(Problem(net, [(torch.ones(3, 2), torch.tensor([0, 1, 0]))])).zeros.tolist()
    [1.0]
    """
    stages = getattr(problem.net, "stages", None)
    if not (isinstance(stages, list) and all(isinstance(stage, list) for stage in stages)):
        kinds = (*KINDS, GhostReLU)
        names = [name for name, m in problem.net.named_modules() if isinstance(m, kinds)]
        stage_last = [False] * len(names)
    else:
        names = [name for stage in stages for name in stage]
        stage_last = [name == stage[-1] for stage in stages for name in stage]
    if not names:
        raise ValueError("the net has no activation layer; need a module such as nn.ReLU in it")

    counts = {name: _Count(threshold) for name in names}
    seen = 0

    def tick(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if progress:
            progress(seen, len(list(problem.batches)))

    hooks = [problem.net.get_submodule(n).register_forward_hook(c) for n, c in counts.items()]
    hooks.append(problem.net.register_forward_hook(tick))
    try:
        problem.outputs()
    finally:
        for hook in hooks:
            hook.remove()
    used = [i for i, name in enumerate(names) if counts[name].total]
    names, stage_last = [names[i] for i in used], [stage_last[i] for i in used]
    counts = {name: counts[name] for name in names}
    return Activations(
        names=names,
        zeros=np.array([float(c.zeros) / c.total for c in counts.values()]),
        small=np.array([float(c.small) / c.total for c in counts.values()]),
        dead=np.array([c.dead for c in counts.values()]),
        stage_last=stage_last,
        threshold=threshold,
        source=source(problem, threshold=threshold),
    )


class _Count:
    """A forward hook that counts on the device; the second dimension is that of the channels."""

    def __init__(self, threshold: float) -> None:
        self.threshold, self.total = threshold, 0
        self.zeros: Tensor | int = 0
        self.small: Tensor | int = 0
        self.alive: dict[int, Tensor] = {}  # by the number of channels: a layer may be shared

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        awake = output != 0
        self.total += output.numel()
        self.zeros = self.zeros + (~awake).sum()
        self.small = self.small + (output.abs() <= self.threshold).sum()
        alive = awake.transpose(0, 1).flatten(1).any(1) if awake.dim() > 1 else awake.any()[None]
        self.alive[len(alive)] = self.alive.get(len(alive), False) | alive

    @property
    def dead(self) -> float:
        """Share of the channels that no sample wakes."""
        return 1 - float(torch.cat(list(self.alive.values())).double().mean())
