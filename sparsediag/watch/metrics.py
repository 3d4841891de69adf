"""Metrics of a training step: each function takes a `Moment` and returns entries of a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import weight_matrices
from sparsediag.diagnostics.gradflow import group_norms, mean_flows
from sparsediag.diagnostics.layers.zero_counts import ZeroCounts

Row = dict[str, float]
Norms = tuple[np.ndarray, np.ndarray]  # of the layers, and their numbers of weights
NOISE_ROWS = 20  # rows that the gradient noise scale is averaged over


@dataclass(frozen=True)
class Moment:
    """All that the metrics of one row read.

    Attributes:
        net: The network, without wrappers.
        mask: The live weights at this step, by the names of `net`; None if all are.
        previous_mask: Those at the row before.
        mask_before: Those before the step.
        first_mask: Those at the start.
        gradients: The gradients of the last steps, the latest last, by name of the weight.
        before: The weights before the step, by name.
        counts: Counts of zeros in the window, by module.
        chosen: Modules whose numbers are told one by one.
        samples: Number of samples in a step; None if it is not known.
        default: Modules that count in the shares of all, as far as they are no functions.
        rate: The learning rate; None if it is not known, or not the same for all weights.
        problem: The loss on the probe batch at the present weights; None without a probe.
        top: Number of eigenvalues.
        memory: What a metric keeps from one row to the next.
        note: Called as `note(metric, message)` for what the user should know once.
    """

    net: nn.Module
    mask: Mask | None
    previous_mask: Mask | None
    mask_before: Mask | None
    first_mask: Mask | None
    gradients: list[dict[str, Tensor]]
    before: dict[str, Tensor]
    counts: Mapping[str, ZeroCounts]
    chosen: list[str]
    default: list[str]
    samples: float | None
    rate: float | None
    problem: Problem | None
    top: int
    memory: dict[str, Any]
    note: Callable[[str, str], None]

    def layers(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of the masked weights; without any, of those that a mask may cover."""
        names = [name for name in self.mask or () if name in tensors]
        names = names or weight_matrices(self.net)  # as with LoRA: masked weights are not trained
        return {name: tensors[name] for name in names if name in tensors}

    @property
    def masked_in_passes(self) -> bool:
        """Return whether each pass masks the weights, as `torch.nn.utils.prune` does."""
        return any(name.endswith(("_orig", ".original")) for name in self.mask or ())

    def update(self) -> dict[str, Tensor]:
        """Return the change of each trained weight in the step."""
        weights = dict(self.net.named_parameters())
        return {name: weights[name].detach() - w for name, w in self.before.items()}


def entry(name: str, value: float, *, converged: bool) -> Row:
    """Return an entry of a row; the name of a number that did not converge says so."""
    return {name if converged else f"{name}_not_converged": value}


def activations(moment: Moment) -> Row:
    """Return the shares of zeros and of dead units in the activations of the window."""
    if not moment.counts:
        raise ValueError(
            "no activation was seen in training mode: the net has none, is compiled, or is in "
            "evaluation mode"
        )
    return activation_shares(moment.counts, moment.default, moment.chosen, "activations")


def activation_shares(
    counts: Mapping[str, ZeroCounts], default: list[str], chosen: list[str], prefix: str
) -> Row:
    """Return the shares over all default modules together, and those of each chosen module."""
    overall = [c for name, c in counts.items() if name in default or name not in chosen]
    row: Row = {}
    if overall:
        totals, units = [c.total for c in overall], [c.units for c in overall]
        row[f"{prefix}/zeros"] = float(np.average([c.shares[0] for c in overall], weights=totals))
        if sum(units):
            dead = np.nan_to_num([c.dead for c in overall])  # nan where there are no units
            row[f"{prefix}/dead"] = float(np.average(dead, weights=units))
    for name in chosen:
        if name in counts:
            row[f"{prefix}/zeros/{name}"] = counts[name].shares[0]
            row[f"{prefix}/dead/{name}"] = counts[name].dead
    return row


def gradient(moment: Moment) -> Row:
    """Return the norms of the gradient on live, dead and regrown weights."""
    latest = moment.gradients[-1] if moment.gradients else {}
    if not any(bool(g.any()) for g in latest.values()):
        raise ValueError(
            "all gradients are 0 or None; the loop may reset them between optimizer.step() and "
            "watch.step() only if the Watch has optimizer="
        )
    layers = moment.layers(latest)
    norms = group_norms(layers, moment.mask, moment.previous_mask)
    for mask in (moment.mask, moment.mask_before):
        groups = group_norms(layers, mask, None)
        dead, count = groups["dead"]
        if count.any() and not dead.any():  # the step was masked by this one
            where = "" if moment.masked_in_passes else "; probe_gradient has them"
            moment.note("gradient", f"the gradients of dead weights were masked{where}")
            norms = {"live": groups["live"]}
            break
    return gradient_norms(norms, "gradient")


def gradient_norms(norms: Mapping[str, Norms], prefix: str) -> Row:
    """Return the norm over all layers of each group, and the mean over the layers of the live one.

    The mean is the effective gradient flow (see `gradflow`).
    """
    if not len(norms["live"][0]):
        raise ValueError("no convolution or linear layer is trained")
    groups = {name: norms[name] for name in ("live", "dead", "regrown") if name in norms}
    row = {f"{prefix}/{name}": _norm(flow) for name, (flow, count) in groups.items() if count.any()}
    return row | {f"{prefix}/flow": mean_flows(*norms["live"])[0]}


def update(moment: Moment) -> Row:
    """Return |change in the step| / |weight after it|, over kept and over regrown weights."""
    masks = moment.mask, moment.previous_mask
    weights = {name: p.detach() for name, p in moment.net.named_parameters()}
    moved = group_norms(moment.layers(moment.update()), *masks)
    sizes = group_norms(moment.layers({n: weights[n] for n in moment.before}), *masks)
    return {
        f"update/{group}": _norm(moved[group][0]) / _norm(sizes[group][0])
        for group in ("kept", "regrown")
        if sizes[group][0].any()
    }


def mask(moment: Moment) -> Row:
    """Return density, turnover since the last row, survival, and dead weights that are not 0."""
    if moment.mask is None:
        raise ValueError("there is no mask at this step")
    now = moment.mask
    before, first = moment.previous_mask or now, moment.first_mask or now
    weights = dict(moment.net.named_parameters())
    row = {
        "mask/density": now.density,
        "mask/turnover": 1 - (now & before).alive / max(now.alive, 1),
        "mask/survival": (now & first).alive / max(first.alive, 1),
    }
    if not moment.masked_in_passes:
        moved = sum(int((weights[n].detach()[~m] != 0).sum()) for n, m in now.items())
        row["mask/dead_not_zero"] = moved
        if moved:
            message = (
                f"{moved} dead weights are not 0, but numbers on the probe are of the masked net"
            )
            moment.note("mask", f"{message}; call mask.apply_(net) after each step")
    return row


def noise(moment: Moment) -> Row:
    """Return the gradient noise scale tr(S) / |G|^2 (McCandlish et al., 2018), in samples.

    G is the mean of the gradient and S its covariance for one sample. Two consecutive steps have
    gradients g and h of B samples at nearly the same weights, so |g - h|^2 / 2 estimates tr(S) / B
    and g . h estimates |G|^2. Both are averaged over the last rows; the ratio has converged if
    there are 5 or more, and the mean of g . h is more than two of its standard errors above 0.
    """
    if len(moment.gradients) < 2:
        return {}
    one, two = ({n: _real(g) for n, g in step.items()} for step in moment.gradients[-2:])
    both = [(one[n], two[n]) for n in one if n in two and one[n].shape == two[n].shape]
    spread = sum(float((g - h).square().sum()) for g, h in both) / 2
    if not 0 < spread < np.inf:
        raise ValueError("the gradients of two steps are 0, None or not finite")
    pairs = moment.memory.get("noise", [])[1 - NOISE_ROWS :]
    pairs.append((spread, sum(float((g * h).sum()) for g, h in both)))
    moment.memory["noise"] = pairs
    spreads, products = np.array(pairs).T
    mean = products.mean()
    error = products.std(ddof=1) / len(pairs) ** 0.5 if len(pairs) >= 5 else np.inf
    scale = spreads.mean() / mean if mean > 0 else np.inf
    name = "noise/scale_in_batches" if moment.samples is None else "noise/scale"
    return entry(name, float(scale * (moment.samples or 1)), converged=bool(mean > 2 * error))


def _real(gradient: Tensor) -> Tensor:
    """Return a gradient in float64; complex numbers are pairs of real ones."""
    return (torch.view_as_real(gradient) if gradient.is_complex() else gradient).double()


def _norm(layers: np.ndarray) -> float:
    return float(np.linalg.norm(layers))
