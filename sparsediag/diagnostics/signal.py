"""Signal propagation: size of outputs and gradients, and angle between samples, through depth.

Glorot and Bengio (2010) watch the size of activations and gradients from layer to layer; Poole et
al. (2016) and Schoenholz et al. (2017) the angle between two samples: where it becomes 0, later
layers cannot tell the samples apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn
from torch.autograd import grad

from sparsediag.core.batches import Batch, num_samples
from sparsediag.core.problem import Problem
from sparsediag.core.progress import track
from sparsediag.diagnostics.layers.hooks import (
    default_modules,
    match_modules,
    observe,
    weight_layer_names,
)
from sparsediag.diagnostics.layers.signal_moments import SignalMoments, pooled_moments
from sparsediag.diagnostics.layers.unit_axis import per_sample
from sparsediag.diagnostics.result import Result, source, table_rows
from sparsediag.diagnostics.traits import History, InReport, Traits, diagnostic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Moments = dict[str, dict[int, SignalMoments]]  # by module, and by output if it has several
PANELS = {  # field -> label and format
    "rms": ("output rms", "o-"),
    "gradient": ("gradient rms", "s-"),
    "cosine": ("mean cosine", "^-"),
}
ALIKE = 0.99  # mean cosine above which samples can hardly be told apart


@dataclass(frozen=True, kw_only=True, eq=False)
class Signal(Result):
    """Size and direction of the outputs of every module, and size of the gradient at them.

    Attributes:
        names: The modules, in the order of their first calls.
        rms: Root mean square of the outputs a, (modules,).
        gains: `rms` divided by that of the previous module; NaN for the first, (modules,).
        cosine: Mean cosine between the outputs of two samples, over all pairs, (modules,): 1 means
            that samples cannot be told apart. NaN where fewer than two outputs are not 0, or the
            output has not one row for each sample.
        gradient: Root mean square of dl/da, with l what one sample adds to the loss, a mean or a
            sum over the samples, (modules,); NaN if no weight of the network comes before the
            module.
        gradient_gains: `gradient` divided by that of the next module; NaN for the last, (modules,).
        separable: True if the loss is made up of independent samples, so that l exists.
    """

    names: list[str]
    rms: np.ndarray
    gains: np.ndarray
    cosine: np.ndarray
    gradient: np.ndarray
    gradient_gains: np.ndarray
    separable: bool = True  # earlier files do not have it

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each module."""
        return table_rows(
            {
                "module": (self.names, ""),
                "output rms": (self.rms, ".3g"),
                "/ previous": (self.gains, ".3g"),
                "mean cosine": (self.cosine, ".3g"),
                "gradient rms": (self.gradient, ".3g"),
                "/ next": (self.gradient_gains, ".3g"),
            }
        )

    def remarks(self) -> list[str]:
        """Return the change from the first to the last module, and the findings."""
        names, rms, gradient = self.names, self.rms, self.gradient
        if not (len(names) > 1 and rms[0] > 0 and gradient[-1] > 0):
            return self.findings
        change = (
            f"from {names[0]} to {names[-1]} the output rms changes by a factor of "
            f"{rms[-1] / rms[0]:.3g}, the gradient on its way back by "
            f"{gradient[0] / gradient[-1]:.3g}"
        )
        return [change, *self.findings]

    @property
    def findings(self) -> list[str]:
        """Return findings about vanishing signals, samples that become alike, and the loss."""
        names, rms, gradient = self.names, self.rms, self.gradient
        lines = []
        if (rms == 0).any():
            lines.append(
                f"the output of {names[np.argmax(rms == 0)]} is 0 for every sample, so no gradient "
                "passes: look for an empty layer in the mask"
            )
        if (alike := self.cosine > ALIKE).any():
            i = int(np.argmax(alike))
            lines.append(
                f"mean cosine {self.cosine[i]:.4f} at {names[i]}: later layers can hardly tell "
                "samples apart; compare with the network at initialisation"
            )
        if not self.separable and (gradient > 0).any():
            lines.append(
                "the loss is not made up of independent samples, so the gradient is not that of "
                "one sample's loss"
            )
        return lines

    def plot(self, ax: Axes | None = None, *, measure: str | None = None) -> Axes:
        """Draw rms of outputs, rms of gradients and cosine side by side, a row a module.

        Args:
            ax: Where to draw one of them; a new figure if None.
            measure: The one to draw: rms (default on `ax`), gradient or cosine.
        """
        from sparsediag.plotting import layers, style

        if measure is None and ax is None:
            panels = layers.new_layer_panels(self.names, len(PANELS))
            for panel, name in zip(panels, PANELS, strict=True):
                self.plot(panel, measure=name)
            return panels[0]
        number = list(PANELS).index(measure or "rms")
        field, (label, form) = list(PANELS.items())[number]
        values, ax = getattr(self, field), ax or layers.new_layer_axes(self.names)
        shown = values if field == "cosine" else np.where(values > 0, values, np.nan)
        ax.plot(shown, range(len(self.names)), form, ms=3, color=style.COLOURS[number])
        layers.label_rows(ax, self.names)
        ax.locator_params(axis="x", nbins=2, steps=(1, 2, 5, 10))
        if field == "cosine":
            ax.set_xlim(min(-0.05, np.nanmin(values, initial=0) * 1.1), 1.05)
        else:
            layers.set_log_scale(ax, "x")
        ax.set_xlabel(label)
        return ax


@diagnostic(
    Traits(
        history=History(
            fields={"cosine": "mean cosine", "rms": "output rms", "gradient": "gradient rms"}
        ),
        report=InReport(cost=lambda points, top: 4),
    )
)
def signal(
    problem: Problem,
    *,
    modules: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Signal:
    """Measure the size of outputs and gradients and the angle between samples, module by module.

    Sources: Glorot and Bengio, AISTATS 2010; Schoenholz et al., ICLR 2017, equations 5 and 8.

    By default the modules are the residual blocks or layers of a built-in network. In any other
    network they are its activation and recurrent layers or, if none of them is called, its
    convolutions and linear layers. All calls of a module count, and of several outputs, such as
    those and the states of a recurrent layer, all that the loss depends on.

    Args:
        problem: The network, the samples and the loss.
        modules: Globs of module names, separated by commas ("layer*.conv2,fc").
        progress: Called as `progress(batches done, all batches)`.

    Returns:
        One value for each module, in the order of their first calls.

    Raises:
        ValueError: If no module matches, or none has a floating-point output.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2))
    >>> _ = torch.nn.init.eye_(net[0].weight), torch.nn.init.zeros_(net[1].weight)
    >>> result = signal(Problem(net, [(torch.eye(2), torch.tensor([0, 1]))]))
    >>> result.rms.round(2).tolist()[0], result.cosine.tolist()[0], result.gradient.tolist()[0]
    (0.71, 0.0, 0.0)
    """
    if modules is None:
        moments = _measure(problem, list(default_modules(problem.net)), progress)
        moments = moments or _measure(problem, weight_layer_names(problem.net), progress)
    else:
        moments = _measure(problem, match_modules(problem.net, modules), progress)
    if not moments:
        raise ValueError("no module has a floating-point output; name modules in use: modules='*'")
    rms, cosine, gradient = np.array([pooled_moments(list(m.values())) for m in moments.values()]).T
    with np.errstate(divide="ignore", invalid="ignore"):
        gains, gradient_gains = rms[1:] / rms[:-1], gradient[:-1] / gradient[1:]
    return Signal(
        names=list(moments),
        rms=rms,
        gains=np.array([np.nan, *gains]),
        cosine=cosine,
        gradient=gradient,
        gradient_gains=np.array([*gradient_gains, np.nan]),
        separable=problem.separable,
        source=source(problem, modules=modules),
    )


def _measure(
    problem: Problem, names: list[str], progress: Callable[[int, int], None] | None
) -> Moments:
    """Return the moments of the modules that are called, in the order of their first calls."""
    moments: Moments = defaultdict(lambda: defaultdict(SignalMoments))
    with problem.evaluation_mode():
        samples = 1 if problem.reduction == "sum" else problem.samples
        batches = list(zip(problem.batches, problem.shares(), strict=True)) if names else []
        for batch, share in track(batches, progress):
            _add_batch(moments, problem, batch, names, share * samples)
            if not moments:
                break
    return moments


def _add_batch(
    moments: Moments, problem: Problem, batch: Batch, names: list[str], scale: float
) -> None:
    """Add the outputs of a batch and `scale` times the gradients at them.

    Gradients are computed down to frozen weights too.
    """
    x, y = batch
    samples = num_samples(batch)
    has_rows = per_sample(problem.net, samples)

    def add(name: str, outputs: list[Tensor], call: int) -> None:
        recurrent = isinstance(problem.net.get_submodule(name), nn.RNNBase)
        for i, output in enumerate(outputs):
            axis = 0 if has_rows(output) else None
            if i and output.dim() == 3 and output.shape[1] == samples:  # states by layer
                axis = 1 if recurrent else None
            moments[name][i].add(output, call, scale, axis)

    weights = {n: w.detach().requires_grad_() for n, w in problem.split(problem.weights).items()}
    parameters = dict(problem.net.named_parameters())
    fixed = {
        name: t.detach().requires_grad_(name in parameters and t.is_floating_point())
        for name, t in problem.frozen_state().items()
    }
    with observe(problem.net, names, add, views=True):
        outputs = problem.forward(weights, x, frozen=fixed)
    if moments:
        leaves = [t for t in (*weights.values(), *fixed.values()) if t.requires_grad]
        loss = problem.reduce_loss(outputs, y, weights, frozen=fixed)
        if loss.requires_grad:
            grad(loss, leaves, allow_unused=True)
