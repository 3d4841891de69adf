"""Losses along eigenvectors, on planes of weights and around images, compared between networks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from figures.effect_sizes import Margin, seed_differences
from figures.measurement import Results, by_seed


def loss_changes(results: Results, *key: Any) -> dict[int, np.ndarray]:
    """Return the change of the loss along an eigenvector, by seed; NaN where it overflows."""
    changes = {}
    for seed, result in by_seed(results, *key).items():
        change = result.loss[0] - result.centre
        changes[seed] = np.where(np.isfinite(change), change, np.nan)
    return changes


def flatter_curve(key: tuple[Any, ...], baseline: tuple[Any, ...]) -> Margin:
    """Return how much less the loss rises along the eigenvector than for a baseline: its mean."""

    def margin(results: Results) -> dict[int, float]:
        mean_change, baseline_change = (
            {seed: float(np.mean(change)) for seed, change in loss_changes(results, *of).items()}
            for of in (key, baseline)
        )
        return seed_differences(baseline_change, mean_change)

    return margin


def plot_curve(
    ax: Axes, results: Results, key: tuple[Any, ...], *, band: float, **line: Any
) -> None:
    """Plot the mean change of the loss over the distance.

    Args:
        ax: Axes to draw on.
        results: Perturbations.
        key: Label of the curves, without the seed.
        band: Opacity of the range between the lowest and the highest seed.
        line: Properties of the line.
    """
    if not (changes := loss_changes(results, *key)):
        return
    curves = np.stack(list(changes.values()))
    distance = next(iter(by_seed(results, *key).values())).distance
    ax.plot(distance, curves.mean(0), **line)
    if len(curves) > 1 and band:
        ax.fill_between(
            distance, curves.min(0), curves.max(0), color=line["color"], alpha=band, lw=0
        )


def mean_rise(inputscape: Any) -> float:
    """Return the mean loss over plane and images minus that of the images; overflow is clamped."""
    loss = np.nan_to_num(inputscape.loss, nan=inputscape.clamp)
    return float(loss.mean() - np.minimum(inputscape.centre, inputscape.clamp).mean())


def flatter_inputs(key: tuple[Any, ...], baseline: tuple[Any, ...]) -> Margin:
    """Return how much less the loss rises around images than for a baseline network."""

    def margin(results: Results) -> dict[int, float]:
        rise, baseline_rise = (
            {seed: mean_rise(result) for seed, result in by_seed(results, *of).items()}
            for of in (key, baseline)
        )
        return seed_differences(baseline_rise, rise)

    return margin


def log_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean of |log10 of the ratio| of two losses, over points where both are finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.abs(np.log10(first) - np.log10(second))
    return float(np.mean(logs[np.isfinite(logs)])) if np.isfinite(logs).any() else np.nan


def first_seeds(results: Results, kinds: Iterable[str]) -> dict[str, Any]:
    """Return the result of the first seed of each kind that was measured."""
    seeds = {kind: by_seed(results, kind) for kind in kinds}
    return {kind: next(iter(of_kind.values())) for kind, of_kind in seeds.items() if of_kind}
