"""Metrics on a fixed probe batch, in evaluation mode and at the weights after the step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsediag.core.problem import Problem
from sparsediag.diagnostics.activations import count_zeros, observed_modules
from sparsediag.diagnostics.gradflow import all_gradients, group_norms
from sparsediag.diagnostics.spectrum import spectrum
from sparsediag.watch.metrics import Moment, Row, activation_shares, entry, gradient_norms

TOLERANCE = 1e-2  # relative residual of an eigenvalue
BISECTIONS = 4  # of a factor of 2, so that a critical step is known to 2 %
SMALLEST, LARGEST = 2.0**-10, 2.0**20  # steps that are tried, in units of the last one


def probe_of(moment: Moment) -> Problem:
    """Return the loss on the probe batch at the present weights."""
    if moment.problem is None:
        raise ValueError("there is no probe batch; give probe=")
    return moment.problem


def probe_loss(moment: Moment) -> Row:
    """Return the loss on the probe batch."""
    return {"probe_loss": probe_of(moment).value()}


def probe_activations(moment: Moment) -> Row:
    """Return the shares of zeros and of dead units; see `activations`."""
    problem = probe_of(moment)
    names, functions, _ = observed_modules(moment.net, None)
    every = list(dict.fromkeys([*names, *moment.chosen]))
    counts = count_zeros(problem, every, functions, torch.zeros(0))
    return activation_shares(counts, names, moment.chosen, "probe_activations")


def probe_gradient(moment: Moment) -> Row:
    """Return the norms of the gradient on live, dead and regrown weights; see `gradflow`."""
    layers = moment.layers(all_gradients(probe_of(moment)))
    norms = group_norms(layers, moment.mask, moment.previous_mask)
    if moment.masked_in_passes:
        del norms["dead"]  # 0 since the passes do not use these weights
    return gradient_norms(norms, "probe_gradient")


def eigenvalue(moment: Moment) -> Row:
    """Return the top eigenvalues in live coordinates, and their residuals.

    The search starts from the eigenvectors of the last row; see `spectrum`.
    """
    start = moment.memory.get("spectrum")
    found = spectrum(probe_of(moment), top=moment.top, tol=TOLERANCE, start=start)
    moment.memory["spectrum"] = found
    row: Row = {}
    for i, (value, residual) in enumerate(zip(found.eigenvalues, found.residuals, strict=True), 1):
        row |= entry(f"eigenvalue/{i}", float(value), converged=found.converged)
        row[f"eigenvalue/{i}_residual"] = float(residual)
    return row


def update_curvature(moment: Moment) -> Row:
    """Return u'Hu / u'u for the last update u: the curvature in its direction."""
    problem, u = probe_of(moment), _live_update(moment)
    if not u.any():
        return {}
    return {"update_curvature": float(u @ problem.hvp(u)) / float(u @ u)}


def critical_sharpness(moment: Moment) -> Row:
    """Return 2 / (critical learning rate), and the critical step (Kalra et al., 2026).

    The critical step is the smallest multiple of the last update that would have raised the loss
    on the probe batch. It is found from forward passes alone.
    """
    problem, u = probe_of(moment), _live_update(moment)
    if not u.any():
        return {}
    start = problem.value(problem.weights - u)

    def rises(step: float) -> bool:
        return not problem.value(problem.weights + (step - 1) * u) <= start

    step, converged = critical_step(rises, moment.memory.get("critical step", 1.0))
    moment.memory["critical step"] = step if converged else 1.0
    row = entry("critical_step", step, converged=converged)
    if moment.rate:
        sharpness = 2 / (step * moment.rate)
        row |= entry("critical_sharpness", sharpness, converged=converged)
    return row


def critical_step(rises: Callable[[float], bool], guess: float) -> tuple[float, bool]:
    """Return the step from which on a function rises, and whether it was found.

    Factors of 2 bracket it, and bisection follows.

    Args:
        rises: Function of a step.
        guess: The first step that is tried.

    >>> critical_step(lambda step: step > 3, guess=1.0)[1]
    True
    """
    high = guess
    while not rises(high):
        if high >= LARGEST:
            return high, False
        high *= 2
    low = high / 2
    while high <= guess and rises(low):  # the first step was too large
        if low <= SMALLEST:
            return low, False
        low, high = low / 2, low
    for _ in range(BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if rises(middle) else (middle, high)
    return (low * high) ** 0.5, True


def _live_update(moment: Moment) -> Tensor:
    """Return the last update in live coordinates, (size,)."""
    problem, update = probe_of(moment), moment.update()
    if not update.keys() >= problem.live.shapes.keys():
        raise ValueError("weights were added or released in this step, so it has no update")
    return problem.join({n: u for n, u in update.items() if n in problem.live.shapes})
