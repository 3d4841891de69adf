"""Activations: how much of the signal is zero, module by module (ToST, Table 1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.batches import count
from sparsediag.core.evaluation import full_precision
from sparsediag.core.problem import Problem
from sparsediag.diagnostics.layers import unit_axis
from sparsediag.diagnostics.layers.hooks import blocks, named, tapped
from sparsediag.diagnostics.layers.zero_counts import Tally, classes
from sparsediag.diagnostics.result import Result, source

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, eq=False)
class Activations(Result):
    """Shares of zeros in the output of every module, over all samples.

    Attributes:
        names: The modules, in the order of their first calls.
        zeros: Share of outputs that are exactly 0, (modules,).
        small: Share with |a| <= threshold, (modules,).
        faint: Share with |a| <= relative times the largest |a| of the same sample in the same call
            of the module; nan where its outputs cannot be told apart by samples, (modules,).
        dead: Share of channels that are 0 at every place of every sample; nan where it is not clear
            which dimension of the outputs they are in, (modules,).
        units: Number of channels; 0 where it is not clear, (modules,).
        rms: Root of the mean square of the outputs, (modules,).
        classes: The targets, where they are indices of classes.
        class_zeros: As `zeros`, over the samples of each class; nan as `faint` is,
            (classes, modules).
        class_dead: As `dead`, over the samples of each class, (classes, modules).
        stage_last: True for the last block of a stage: the layers of ToST, Table 1.
        threshold: What counts as small.
        relative: What counts as faint.
    """

    names: list[str]
    zeros: np.ndarray
    small: np.ndarray
    faint: np.ndarray
    dead: np.ndarray
    units: np.ndarray
    rms: np.ndarray
    classes: list[int]
    class_zeros: np.ndarray
    class_dead: np.ndarray
    stage_last: list[bool]
    threshold: float
    relative: float

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each module."""
        rows = [
            {
                "block": name + (" *" if last else ""),
                "channels": str(units or ""),
                "exactly 0": f"{zero:.2%}",
                f"|a| <= {self.threshold:g}": f"{small:.2%}",
                f"|a| <= {self.relative:g} max": "" if np.isnan(faint) else f"{faint:.2%}",
                "dead channels": "" if np.isnan(dead) else f"{dead:.2%}",
                "rms": f"{rms:.3g}",
            }
            for name, last, units, zero, small, faint, dead, rms in zip(
                self.names,
                self.stage_last,
                self.units,
                self.zeros,
                self.small,
                self.faint,
                self.dead,
                self.rms,
                strict=True,
            )
        ]
        if len(self.classes) < 2:
            return rows
        heads = {"dead for a class": self.class_dead.mean(0), "at most": self.class_dead.max(0)}
        return [
            row | {head: "" if np.isnan(v[i]) else f"{v[i]:.2%}" for head, v in heads.items()}
            for i, row in enumerate(rows)
        ]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Shares, a row a module; the last block of each stage is ringed."""
        from sparsediag.plotting import layers, style

        ax = ax or layers.axes(self.names)
        rows = np.arange(len(self.names))
        lines = {
            f"|a| ≤ {self.threshold:g}": self.small,
            "exactly 0": self.zeros,
            "dead channels": self.dead,
        }
        if len(self.classes) > 1:
            lines["dead for a class"] = self.class_dead.mean(0)
        for (label, share), colour in zip(lines.items(), style.COLOURS, strict=False):
            ax.plot(100 * share, rows, "o-", ms=3, color=colour, label=label)
        last = np.flatnonzero(self.stage_last)
        ax.plot(100 * self.small[last], last, "o", ms=7, mfc="none", color="black")
        layers.label(ax, self.names)
        ax.set(xlabel="share (%)", xlim=(-3, 103))
        layers.legend(ax)
        return ax


@full_precision()
def activations(
    problem: Problem,
    *,
    modules: str | None = None,
    threshold: float = 0.01,
    relative: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> Activations:
    """Shares of zero and small outputs of every module, dead channels, for each class as well.

    The blocks of the built-in nets are their residual blocks or layers, after the addition. In
    any other net they are its activations, layers or functions such as `F.relu`, which go by the
    module that calls them, and its recurrent layers. All calls in a pass count.

    Samples are told apart where an output has one row for each, and channels are where the layer
    that ran last has put them; see `axis`.

    Args:
        problem: The net and the samples.
        modules: Look at these, globs of names parted by commas ("layer*.conv2,fc"), and not at
            the blocks.
        threshold: |a| up to this counts as small; ToST's code uses 0.01 and calls it sparsity.
        relative: |a| up to this share of the sample's largest counts as faint, on any scale.
        progress: Called as `progress(batches, all)`.

    Raises:
        ValueError: If the net has no block and no activation to look at, or `modules` names none
            that gives numbers.

    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    >>> _ = torch.nn.init.zeros_(net[0].weight), torch.nn.init.constant_(net[0].bias, -1.0)
    >>> activations(Problem(net, [(torch.ones(3, 2), torch.tensor([0, 1, 0]))])).zeros.tolist()
    [1.0]
    """
    if not (threshold >= 0 and relative >= 0):
        raise ValueError(f"threshold={threshold}, relative={relative}: need 0 or more")
    ends = blocks(problem.net) if modules is None else {}
    names = list(ends) if modules is None else named(problem.net, modules)
    functions = modules is None and not any(ends.values())  # not in the blocks of built-in nets
    options = {"threshold": threshold, "relative": relative}
    batches, weights = list(problem.batches), problem.split(problem.weights)
    known = classes([y for _, y in batches])
    tallies: dict[str, Tally] = defaultdict(partial(Tally, **options, classes=len(known)))
    with problem.modes(), torch.no_grad():
        for i, (x, y) in enumerate(batches):
            labels = torch.searchsorted(known, y.long()) if len(known) else known
            apart = unit_axis.samples_first(problem.net, count((x, y)))
            with unit_axis.units(problem.net) as units:
                add = _adding(tallies, labels, apart, units)
                with tapped(problem.net, names, add, functions=functions):
                    problem.forward(weights, x)
            if progress:
                progress(i + 1, len(batches))
    if not tallies and modules is None:
        raise ValueError("the net has no activation to look at; name modules: modules='*'")
    if not tallies:
        raise ValueError(f"'{names[0]}' and the like give no numbers; name modules in use")
    counts = list(tallies.values())
    zeros, small, faint, rms = np.array([tally.shares for tally in counts]).T
    class_zeros, class_dead = np.stack([tally.of_classes for tally in counts], axis=2)
    return Activations(
        names=list(tallies),
        zeros=zeros,
        small=small,
        faint=faint,
        dead=np.array([tally.dead for tally in counts]),
        units=np.array([tally.units for tally in counts]),
        rms=rms,
        classes=known.tolist(),
        class_zeros=class_zeros,
        class_dead=class_dead,
        stage_last=[ends.get(name, False) for name in tallies],
        **options,
        source=source(problem, modules=modules, **options),
    )


def _adding(
    tallies: dict[str, Tally],
    labels: Tensor,
    apart: Callable[[Tensor], bool],
    axis: Callable[[Tensor], int | None],
) -> Callable[[str, Tensor, int], None]:
    return lambda name, output, _: tallies[name].add(
        output, labels, apart=apart(output), axis=axis(output)
    )
