"""Lottery, Figure 2: the top Hessian eigenvalue of networks with ReLU, Swish and Mish.

The paper's claim: smooth activations lead to minima with lower curvature than ReLU does. It shows
the mean over 10 random batches and does not give the sparsity. Here it is the eigenvalue of the
mean loss over one sample of training images, which is at most the mean over its batches, with
respect to the live weights. A small dot is one seed, a large mark their geometric mean.

Two things could cause such a difference without a smoother loss. Hollow marks include the curvature
along pruned weights, as tools without masks do. On the right the eigenvalue is multiplied by the
squared norm of the weights: with batch norm, larger weights alone make smaller eigenvalues.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from figures.claims import Claim
from figures.effect_sizes import Margin, mean, mean_by_seed
from figures.lottery.runs import LEVELS, run
from figures.measurement import ALL_SEEDS, Measurement, Results, by_seed
from figures.scales import Scale
from sparsediag.plotting import style
from sparsediag.plotting.accuracy import sparsity

KINDS = {"ReLU": "vanilla", "Swish": "Swish", "Mish": "Mish"}
PRUNED = "pruned weights too"
MARKERS = {"ReLU": "o", "Swish": "s", "Mish": "D"}
DENSITIES = tuple(LEVELS[k] for k in (5, 11, 16))
VIEWS: dict[str, tuple[tuple[str, Any], ...]] = {
    "live": (("top", 1),),
    "dense": (("top", 1), ("dense", True)),
}
MEASUREMENTS = {
    (name, density, view, seed): Measurement(run(kind, density, seed), "spectrum", options=options)
    for name, kind in KINDS.items()
    for density in DENSITIES
    for view, options in VIEWS.items()
    if view == "live" or density == LEVELS[11]
    for seed in ALL_SEEDS
}


def log_eigenvalues(
    results: Results, name: str, density: float, view: str = "live", *, scaled: bool = False
) -> dict[int, float]:
    """Return log10 of the top eigenvalue by seed, optionally times |w|^2; NaN if negative."""
    logs = {}
    for seed, spectrum in by_seed(results, name, density, view).items():
        value = spectrum.eigenvalues[0] * (spectrum.weight_norm**2 if scaled else 1)
        logs[seed] = float(np.log10(value)) if value > 0 else np.nan
    return logs


def below_relu(name: str, *, scaled: bool = False) -> Margin:
    """Return how far an activation is below ReLU, the mean over the sparsities, by seed."""

    def margin(results: Results) -> dict[int, float]:
        gaps = []
        for density in DENSITIES:
            relu = log_eigenvalues(results, "ReLU", density, scaled=scaled)
            smooth = log_eigenvalues(results, name, density, scaled=scaled)
            if relu and smooth:
                gaps.append({s: relu[s] - smooth[s] for s in relu.keys() & smooth.keys()})
        return mean_by_seed(gaps)

    return margin


CLAIMS = (
    Claim(
        says="The top Hessian eigenvalue is smaller with Swish and Mish than with ReLU",
        quote="Comparatively smaller eigenvalues of soft-activation (Swish/Mish) based sparse "
        "NN wrt. ReLU based networks indicate the presence of high smoothness",
        source="caption",
        margin=mean(below_relu("Swish"), below_relu("Mish")),
        unit="ratio (log10)",
    ),
    Claim(
        says="So is the top eigenvalue times the squared norm of the weights",
        quote="Top eigenvalue of Hessian can act as a proxy for smoothness",
        source="section 3.3",
        margin=mean(below_relu("Swish", scaled=True), below_relu("Mish", scaled=True)),
        unit="ratio (log10)",
    ),
)


def _plot_eigenvalues(ax: Axes, results: Results, *, scaled: bool) -> None:
    """Plot all eigenvalues on one panel: the activations side by side at each sparsity."""
    densities = [d for d in DENSITIES if any(density == d for _, density, _, _ in results)]
    for i, (name, marker) in enumerate(MARKERS.items()):
        colour = style.COLOUR_OF[name]
        for view in ("live",) if scaled else ("live", "dense"):
            face, shift = (colour, 0.0) if view == "live" else ("white", 0.13)
            for j, density in enumerate(densities):
                logs = np.array(
                    list(log_eigenvalues(results, name, density, view, scaled=scaled).values())
                )
                logs = logs[np.isfinite(logs)]
                if len(logs):
                    x = j + 0.3 * (i - 1) + shift
                    ax.plot(
                        x, 10 ** np.mean(logs), marker, color=colour, mfc=face, ms=4, zorder=3,
                        label=name if view == "live" else PRUNED,
                    )  # fmt: skip
                    if len(logs) > 1:
                        ax.plot([x] * len(logs), 10**logs, ".-", color=colour, ms=2.5, lw=0.5)
    ax.set(yscale="log", xlabel="sparsity (%)", xlim=(-0.5, len(densities) - 0.5))
    ax.set_xticks(range(len(densities)), [sparsity(d) for d in densities])
    ax.grid(False, axis="x")
    low, high = ax.get_ylim()
    ax.set_ylim(low / 1.6, high * 1.6)  # so that there is at least one tick
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def draw(results: Results, scale: Scale) -> Figure:
    """Draw the eigenvalues on the left; on the right times the squared norm of the weights."""
    fig = style.new_figure(style.COLUMN, 2.4)
    left, right = fig.subplots(1, 2, width_ratios=(1.5, 1))
    _plot_eigenvalues(left, results, scaled=False)
    _plot_eigenvalues(right, results, scaled=True)
    left.set_ylabel("top Hessian eigenvalue λ")
    right.set_ylabel("λ · |w|²")
    handles, labels = left.get_legend_handles_labels()
    by_label = dict(zip(labels[::-1], handles[::-1], strict=True))
    entries = {name: by_label[name] for name in (*KINDS, PRUNED) if name in by_label}
    fig.legend(
        entries.values(), entries.keys(), loc="outside upper center", ncols=4, columnspacing=1,
        handletextpad=0.1,
    )  # fmt: skip
    return fig
