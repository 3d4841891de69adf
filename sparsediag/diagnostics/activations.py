"""Activations: shares of zero activations and of dead units, module by module (ToST, Table 1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsediag.core.batches import num_samples
from sparsediag.core.problem import Problem
from sparsediag.core.progress import track
from sparsediag.diagnostics.layers.hooks import Observer, default_modules, match_modules, observe
from sparsediag.diagnostics.layers.unit_axis import per_sample, unit_axis
from sparsediag.diagnostics.layers.zero_counts import ZeroCounts, class_indices
from sparsediag.diagnostics.result import Result, source, table_rows
from sparsediag.diagnostics.traits import History, InReport, Traits, diagnostic

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, eq=False)
class Activations(Result):
    """Shares of zeros in the outputs of every module, over all samples.

    Attributes:
        names: The modules, in the order of their first calls.
        zeros: Share of outputs a that are exactly 0, (modules,).
        small: Share with |a| <= threshold, (modules,).
        faint: Share with |a| <= relative * max |a|, the maximum over the same sample and call; NaN
            where the output has not one row for each sample, (modules,).
        dead: Share of channels that are 0 at every position of every sample; NaN where it is
            unclear which dimension holds the channels, (modules,).
        units: Number of channels; 0 where unclear, (modules,).
        rms: Root mean square of the outputs, (modules,).
        classes: The classes among the targets; empty if targets are no class indices.
        class_zeros: As `zeros`, over the samples of each class, (classes, modules).
        class_dead: As `dead`, over the samples of each class, (classes, modules).
        stage_last: True for the last block of a stage: the layers of ToST, Table 1.
        threshold: Largest |a| that counts as small.
        relative: Largest |a| / max |a| that counts as faint.
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
        """Return one row for each module; a star marks the last block of a stage."""
        blocks = [n + " *" * last for n, last in zip(self.names, self.stage_last, strict=True)]
        columns: dict[str, tuple[Any, str]] = {
            "block": (blocks, ""),
            "channels": (np.where(self.units, self.units, np.nan), ".0f"),
            "exactly 0": (self.zeros, ".2%"),
            f"|a| <= {self.threshold:g}": (self.small, ".2%"),
            f"|a| <= {self.relative:g} max": (self.faint, ".2%"),
            "dead channels": (self.dead, ".2%"),
            "rms": (self.rms, ".3g"),
        }
        if len(self.classes) > 1:
            columns["dead in a class: mean"] = (self.class_dead.mean(0), ".2%")
            columns["max"] = (self.class_dead.max(0), ".2%")
        return table_rows(columns)

    @property
    def findings(self) -> list[str]:
        """Return the block with the largest share of dead channels, if there is any."""
        dead = np.nan_to_num(self.dead)
        worst = int(dead.argmax())
        if not dead[worst]:
            return []
        return [f"{dead[worst]:.0%} of the channels of {self.names[worst]} are always 0"]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the shares, a row a module, with a ring at the last block of each stage."""
        from sparsediag.plotting import layers

        shares = {
            f"|a| ≤ {self.threshold:g}": self.small,
            "exactly 0": self.zeros,
            "dead channels": self.dead,
        }
        if len(self.classes) > 1:
            shares["dead in a class (mean)"] = self.class_dead.mean(0)
        ax = layers.plot_layers(self.names, {k: (100 * v, "o-") for k, v in shares.items()}, ax)
        last = np.flatnonzero(self.stage_last)
        rings: dict[str, Any] = {
            "ms": 7,
            "mfc": "none",
            "color": "black",
            "label": "end of a stage",
        }
        ax.plot(100 * self.small[last], last, "o", **rings)
        ax.set(xlabel="share (%)", xlim=(-3, 103))
        layers.add_legend(ax)
        return ax


@diagnostic(
    Traits(
        history=History(
            fields={
                "small": "small",
                "zeros": "exactly 0",
                "dead": "dead channels",
                "faint": "faint",
                "rms": "rms",
            },
            ylabel="share",
            log=False,
        ),
        report=InReport(),
    )
)
def activations(
    problem: Problem,
    *,
    modules: str | None = None,
    threshold: float = 0.01,
    relative: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> Activations:
    """Measure the shares of zero and small activations and of dead channels, module by module.

    By default the modules are the residual blocks or layers of a built-in network, after the
    addition. In any other network they are its activations and its recurrent layers. Activations
    are layers, or functions under the name of the module that calls them: those named as such
    (`F.relu`), nonlinear functions of each element (`clamp`, `maximum`, `abs`), selections by a
    condition on the signal (`where(x > 0, x, 0)`), and products of two signals (gates). All calls
    of a module count, and of several outputs the first.

    Args:
        problem: The network and the samples; class labels give shares for each class too.
        modules: Globs of module names, separated by commas ("layer*.conv2,fc").
        threshold: An activation a is small if |a| is at most this (ToST's code: 0.01).
        relative: It is faint if |a| is at most this share of the sample's largest |a|.
        progress: Called as `progress(batches done, all batches)`.

    Returns:
        The shares of every module, (modules,), and for each class, (classes, modules).

    Raises:
        ValueError: If a threshold is negative, the network has no activation, or `modules` matches
            no module with a floating-point output.

    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    >>> _ = torch.nn.init.zeros_(net[0].weight), torch.nn.init.constant_(net[0].bias, -1.0)
    >>> activations(Problem(net, [(torch.ones(3, 2), torch.tensor([0, 1, 0]))])).zeros.tolist()
    [1.0]
    """
    if not (threshold >= 0 and relative >= 0):
        raise ValueError(f"threshold={threshold}, relative={relative}: need 0 or more")
    names, functions, stage_last = observed_modules(problem.net, modules)
    options = {"threshold": threshold, "relative": relative}
    classes = class_indices([y for _, y in problem.batches])
    counts = count_zeros(problem, names, functions, classes, progress=progress, **options)
    if not counts and modules is None:
        raise ValueError("the network has no activation to look at; name modules: modules='*'")
    if not counts:
        raise ValueError(f"'{names[0]}' has no floating-point output; name modules in use")
    zeros, small, faint, rms = np.array([c.shares for c in counts.values()]).T
    class_zeros, class_dead = np.stack([c.class_shares for c in counts.values()], axis=2)
    return Activations(
        names=list(counts),
        zeros=zeros,
        small=small,
        faint=faint,
        dead=np.array([c.dead for c in counts.values()]),
        units=np.array([c.units for c in counts.values()]),
        rms=rms,
        classes=classes.tolist(),
        class_zeros=class_zeros,
        class_dead=class_dead,
        stage_last=[stage_last.get(name, False) for name in counts],
        **options,
        source=source(problem, modules=modules, **options),
    )


def count_zeros(
    problem: Problem,
    names: list[str],
    functions: bool,
    classes: Tensor,
    *,
    threshold: float = 0.0,
    relative: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, ZeroCounts]:
    """Return the counts of each module over all batches; for the options see `activations`.

    Args:
        problem: The network and the samples.
        names: Names of the modules.
        functions: Also observe activations that are functions.
        classes: The classes among the targets, sorted; or empty.
        threshold: Largest |a| that counts as small.
        relative: Largest |a| / max |a| that counts as faint.
        progress: Called as `progress(batches done, all batches)`.
    """
    options = {"threshold": threshold, "relative": relative}
    counts = defaultdict[str, ZeroCounts](partial(ZeroCounts, **options, classes=len(classes)))
    with problem.evaluation_mode():
        for batch in track(list(problem.batches), progress):
            x, y = batch
            labels = torch.searchsorted(classes, y.long()) if len(classes) else classes
            has_rows = per_sample(problem.net, num_samples(batch))
            with (
                zero_observer(problem.net, counts, labels, has_rows) as add,
                observe(problem.net, names, add, functions=functions),
            ):
                problem.forward(problem.split(problem.weights), x)
    return counts


@contextmanager
def zero_observer(
    net: nn.Module,
    counts: Mapping[str, ZeroCounts],
    labels: Tensor,
    has_rows: Callable[[Tensor], bool],
) -> Iterator[Observer]:
    """Yield an observer (see `observe`) that counts the first output of each call of a module.

    Args:
        net: The network; its hooks are removed at the end of the block.
        counts: Counts by the name of the module; a defaultdict makes them.
        labels: Index of each sample's class, (samples,), or empty.
        has_rows: Tells if an output has one row for each sample.
    """
    with unit_axis(net) as axis:

        def add(name: str, outputs: list[Tensor], _call: int) -> None:
            a = outputs[0]
            counts[name].add(a, labels, per_sample=has_rows(a), axis=axis(a))

        yield add


def observed_modules(
    net: nn.Module, modules: str | None
) -> tuple[list[str], bool, dict[str, bool]]:
    """Return what `activations` looks at: names, are functions among it, and the ends of stages.

    Args:
        net: The network.
        modules: Globs of module names, separated by commas; None for the default.
    """
    stage_last = default_modules(net) if modules is None else {}
    names = list(stage_last) if modules is None else match_modules(net, modules)
    functions = modules is None and not any(stage_last.values())  # not in built-in networks
    return names, functions, stage_last
