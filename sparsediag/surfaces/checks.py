"""Checks of a loss landscape, for findings to read before believing the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsediag.core.batches import rechunk, select_samples
from sparsediag.core.evaluation import BATCH_NORMS
from sparsediag.surfaces.evaluate import LossEvaluator

FEW = 128  # samples for which the statistics of batch norm are estimated
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def check_plane(evaluator: LossEvaluator, *, expected: float | None = None) -> list[str]:
    """Return findings about the network, its data and the directions.

    Args:
        evaluator: Computes the points of the plane.
        expected: The loss that the training recorded for these samples.
    """
    plane, problem = evaluator.plane, evaluator.problem
    findings = [*plane.doubts, *problem.doubts]
    cosine = np.abs(np.triu(plane.gram, 1)).max()
    if cosine > 0.3 and not (plane.lines or plane.stops):
        findings.append(f"the axes have a cosine of {cosine:.2f}; use orthogonal=True")
    kinds = (BATCH_NORMS, *DROPOUTS)
    training = any(m.training and isinstance(m, kinds) for m in problem.net.modules())
    if training and problem.batch_norm == "eval":
        findings.append("the network was in training mode; it was measured in evaluation mode")
    centre, network_loss = evaluator.centre_loss, evaluator.network_loss
    findings += _check_classes(evaluator)
    if (
        abs(centre - network_loss) > 1e-3 * max(1.0, abs(network_loss))
        and evaluator.statistics == "fixed"
    ):
        findings.append(
            f"the loss at the centre is {centre:.5g}, that of the network itself {network_loss:.5g}"
        )
    if expected is not None and abs(network_loss - expected) > 0.01 * max(1.0, abs(expected)):
        findings.append(
            f"the loss of the network is {network_loss:.4g}, its training recorded {expected:.4g}"
        )
    if evaluator.statistics == "fixed" and problem.batch_norm == "eval":
        findings += _check_batch_norm(evaluator)
    return findings


def _check_classes(evaluator: LossEvaluator) -> list[str]:
    """Return a finding if some classes are not among the samples."""
    labels, shape = [y for _, y in evaluator.problem.batches], evaluator.output_shape
    if shape is None or len(shape) != 2 or not all(map(_are_class_indices, labels)):
        return []
    indices, classes = torch.cat(labels), shape[1]
    seen = len(indices[indices >= 0].unique())
    return [f"only {seen} of {classes} classes are among the samples"] if seen < classes else []


def _are_class_indices(targets: Any) -> bool:
    return isinstance(targets, Tensor) and targets.dim() == 1 and not targets.is_floating_point()


def _check_batch_norm(evaluator: LossEvaluator) -> list[str]:
    """Return a finding if estimated statistics of batch norm make the loss of samples much lower.

    Some samples suffice, every n-th one: they may be sorted.
    """
    problem, step = evaluator.problem, -(-evaluator.problem.samples // FEW)
    if problem.samples < 2 or not any(isinstance(m, BATCH_NORMS) for m in problem.net.modules()):
        return []
    if step > 1 and problem.separable:
        joined = rechunk(problem.batches, problem.samples)
        problem = problem.on([select_samples(b, slice(None, None, step)) for b in joined])
    on = replace(evaluator.plane, problem=problem, stops=(), names=())
    loss, estimated = problem.value(), LossEvaluator(on, statistics="estimate").centre_loss
    if not loss > 1.5 * estimated + 0.05:
        return []
    return [
        f"batch norm's running statistics are stale: the loss is {loss:.3g} with them, "
        f"{estimated:.3g} with those of these samples; use statistics='estimate'"
    ]


def check_grid(loss: np.ndarray, centre: float, *, axes: int) -> list[str]:
    """Return findings about a finished grid: points not finite, a span too small or large, too few.

    Args:
        loss: (points,), (points, points), or (lines, points) with one axis.
        centre: The loss at the centre.
        axes: How many of the last dimensions are coordinates.
    """
    finite = loss[np.isfinite(loss)]
    findings = []
    if finite.size < loss.size:
        findings.append(f"{loss.size - finite.size} of {loss.size} points are not finite")
    if finite.size < 3:
        return [*findings, "too few points are finite to see anything; use a smaller span"]
    low, high = float(finite.min()), float(finite.max())
    if high - low < 1e-3 * max(abs(centre), 1e-6):
        return [*findings, f"the loss changes by {high - low:.1e} only; use a larger span"]
    if (loss < low + 0.05 * (high - low)).mean() < 0.01:
        findings.append("the basin covers less than 1 % of the points; use a smaller span")
    with np.errstate(invalid="ignore"):
        shown = np.log(loss) if low > 0 else loss  # as in pictures
    deviation = max(_max_deviation(np.moveaxis(shown, -1 - axis, 0)) for axis in range(axes))
    seen = shown[np.isfinite(shown)]
    if deviation > 0.15 * np.ptp(seen):
        amount = f"{deviation:.2g}" if shown is loss else f"a factor of {np.exp(deviation):.2g}"
        findings.append(
            f"the grid is coarse: points differ from the mean of their neighbours by up to "
            f"{amount}; use more points or a smaller span"
        )
    return findings


def _max_deviation(loss: np.ndarray) -> float:
    """Return the largest deviation from the mean of its two neighbours along the first axis."""
    if len(loss) < 3:
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        deviations = np.abs(loss[1:-1] - (loss[:-2] + loss[2:]) / 2)
    return float(deviations[np.isfinite(deviations)].max(initial=0))
