"""Signal: how far what goes in, and the gradient that comes back, carry through the depth of a net.

Glorot and Bengio (2010) watch the size of activations and gradients from layer to layer, and
Poole et al. (2016) and Schoenholz et al. (2017) the angle between two samples: where it closes,
later layers cannot tell them apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import grad

from sparsediag.core.batches import count
from sparsediag.core.evaluation import full_precision
from sparsediag.core.problem import Problem
from sparsediag.diagnostics.layers.hooks import blocks, layers, named, tapped
from sparsediag.diagnostics.layers.signal_moments import Wave
from sparsediag.diagnostics.layers.unit_axis import samples_first
from sparsediag.diagnostics.result import Result, source

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, eq=False)
class Signal(Result):
    """Size and direction of what comes out of every module, and of the gradient there.

    Attributes:
        names: The modules, in the order of their first calls.
        rms: Root of the mean square of the outputs, (modules,).
        gains: `rms` over that of the module before; nan for the first, (modules,).
        cosine: Mean cosine between the outputs of two samples, over all pairs: 1 where samples are
            no longer told apart; nan where there are no two outputs with a direction, or an output
            has not one row for each sample, (modules,).
        gradient: Root of the mean square of dl/da, where l is the loss of one sample and a the
            output; nan where no weight of the net comes before, (modules,).
        gradient_gains: `gradient` over that of the module after; nan for the last, (modules,).
        separable: Whether the loss is a mean over samples that do not see each other, so that there
            is a loss of one sample.
    """

    names: list[str]
    rms: np.ndarray
    gains: np.ndarray
    cosine: np.ndarray
    gradient: np.ndarray
    gradient_gains: np.ndarray
    separable: bool = True  # as files of before say nothing of it

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each module."""
        heads = ("rms", "x before", "cosine", "gradient", "x after")
        columns = (self.rms, self.gains, self.cosine, self.gradient, self.gradient_gains)
        return [
            {"module": name}
            | {h: "" if np.isnan(v) else f"{v:.3g}" for h, v in zip(heads, row, strict=True)}
            for name, *row in zip(self.names, *columns, strict=True)
        ]

    def remarks(self) -> list[str]:
        """Return what the depth does to the signal."""
        there, back = self.rms[[0, -1]], self.gradient[[-1, 0]]
        told = []
        if len(self.names) > 1 and there[0] > 0 and back[0] > 0:
            told.append(
                f"from {self.names[0]} to {self.names[-1]} the outputs change "
                f"x {there[1] / there[0]:.3g}, the gradient on its way back "
                f"x {back[1] / back[0]:.3g}"
            )
        ended = np.flatnonzero(self.rms == 0)
        if len(ended):
            told.append(f"nothing comes out of {self.names[ended[0]]}")
        closed = np.flatnonzero(self.cosine > 0.99)
        if len(closed):
            told.append(
                f"{self.names[closed[0]]} hardly tells samples apart: "
                f"mean cosine {self.cosine[closed[0]]:.4f}"
            )
        if not self.separable and (self.gradient > 0).any():
            told.append(
                "the loss is no mean over separate samples, so the gradient is not that of a "
                "sample's loss; if it is a sum, it is too large by the samples of a batch"
            )
        return told

    def plot(self, ax: Axes | None = None) -> Axes:
        """Sizes on a logarithmic axis, the cosine on one above, a row a module."""
        from sparsediag.plotting import layers as depth
        from sparsediag.plotting import style

        ax = ax or depth.axes(self.names)
        rows = np.arange(len(self.names))
        for size, mark, colour in zip(
            (self.rms, self.gradient), "os", style.COLOURS[:2], strict=True
        ):
            ax.plot(np.where(size > 0, size, np.nan), rows, f"{mark}-", ms=3, color=colour)
        depth.logarithmic(ax, "x")
        ax.set_xlabel("rms: ● outputs, ■ gradient")
        with style.style():
            above = ax.twiny()
        above.plot(self.cosine, rows, "^:", ms=3, color=style.COLOURS[2])
        above.set_xlim(min(-0.03, np.nanmin(self.cosine, initial=0) * 1.1), 1.03)
        above.set_xlabel("mean cosine between samples", color=style.COLOURS[2])
        above.spines["top"].set_visible(True)
        above.grid(visible=False)
        depth.label(ax, self.names)
        return ax


@full_precision()
def signal(
    problem: Problem,
    *,
    modules: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Signal:
    """Sizes of outputs and gradients, and the angle between samples, module by module.

    Sources: Glorot and Bengio, AISTATS 2010; Schoenholz et al., ICLR 2017, equations 5 and 8.

    The blocks of the built-in nets are their residual blocks or layers. In any other net they are
    its activation and recurrent layers, or, where none is in use, its convolutions and linear
    layers. All calls of a module in a pass count.

    Args:
        problem: The net, the samples and the loss.
        modules: Look at these, globs of names parted by commas ("layer*.conv2,fc"), and not at
            the blocks.
        progress: Called as `progress(batches, all)`.

    Raises:
        ValueError: If there is no module to look at.

    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2))
    >>> _ = torch.nn.init.eye_(net[0].weight), torch.nn.init.zeros_(net[1].weight)
    >>> samples = [(torch.eye(2), torch.tensor([0, 1]))]
    >>> found = signal(Problem(net, samples))
    >>> found.rms.round(2).tolist()[0], found.cosine.tolist()[0], found.gradient.tolist()[0]
    (0.71, 0.0, 0.0)
    """
    if modules is None:
        waves = _waves(problem, list(blocks(problem.net)), progress)
        waves = waves or _waves(problem, layers(problem.net), progress)
    else:
        waves = _waves(problem, named(problem.net, modules), progress)
    if not waves:
        raise ValueError("no module to look at gives numbers; name some that are in use")
    rms, cosine, gradient = np.array([wave.found for wave in waves.values()]).T
    with np.errstate(divide="ignore", invalid="ignore"):
        gains, back = rms[1:] / rms[:-1], gradient[:-1] / gradient[1:]
    return Signal(
        names=list(waves),
        rms=rms,
        gains=np.array([np.nan, *gains]),
        cosine=cosine,
        gradient=gradient,
        gradient_gains=np.array([*back, np.nan]),
        separable=problem.separable,
        source=source(problem, modules=modules),
    )


def _waves(
    problem: Problem, names: list[str], progress: Callable[[int, int], None] | None
) -> dict[str, Wave]:
    """Those of the modules that are in use, in the order of their first calls."""
    waves: dict[str, Wave] = defaultdict(Wave)
    batches = list(problem.batches) if names else []
    with problem.modes(), torch.enable_grad():
        for i, batch in enumerate(batches):
            weights, still = _leaves(problem)
            with tapped(problem.net, names, _seeing(waves, problem.net, count(batch))):
                outputs = problem.forward(weights, batch[0], still=still)
            if not waves:
                break
            moving = [t for t in (*weights.values(), *still.values()) if t.requires_grad]
            grad(problem.reduce_loss(outputs, batch[1]), moving, allow_unused=True)
            if progress:
                progress(i + 1, len(batches))
    return waves


def _leaves(problem: Problem) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All weights, the frozen ones too, such that a gradient comes down to them; and buffers."""
    weights = {n: w.detach().requires_grad_() for n, w in problem.split(problem.weights).items()}
    frozen, still = dict(problem.net.named_parameters()), {}
    for name, t in problem.still().items():
        still[name] = t.detach().requires_grad_(name in frozen and t.is_floating_point())
    return weights, still


def _seeing(
    waves: dict[str, Wave], net: nn.Module, samples: int
) -> Callable[[str, Tensor, int], None]:
    apart = samples_first(net, samples)
    return lambda name, output, call: waves[name].forward(
        output, call, samples, apart=apart(output)
    )
