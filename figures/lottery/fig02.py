"""Lottery, Figure 2: the top Hessian eigenvalue of nets with ReLU, Swish and Mish.

The paper's claim: smooth activations find minima of smaller curvature than ReLU does. It shows the
mean over 10 random batches and names no sparsity. Here it is the eigenvalue of the mean loss over
one sample of training images, which is at most the mean over its batches; weights move that the
mask leaves alive. A small dot is one seed, a large mark their geometric mean.

Two things could make such a difference without a smoother loss. Hollow marks count the curvature
along dead weights too, as tools without masks do. On the right the eigenvalue is multiplied by the
squared norm of the weights: behind batch norm, larger weights alone make smaller eigenvalues.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from figures.accuracy import sparsity
from figures.claims import Claim, Results
from figures.lottery._runs import LEVELS, run
from figures.measurement import Need
from figures.scales import Scale
from sparsediag.plotting import style

SEEDS = 1
KINDS = {"ReLU": "vanilla", "Swish": "Swish", "Mish": "Mish"}
MARKERS = {"ReLU": "o", "Swish": "s", "Mish": "D"}
DENSITIES = tuple(LEVELS[k] for k in (5, 11, 16))
VIEWS: dict[str, tuple[tuple[str, Any], ...]] = {
    "live": (("top", 1),),
    "dense": (("top", 1), ("dense", True)),
}
NEEDS = {
    (name, density, seed, view): Need(run(kind, density, seed), "spectrum", options=options)
    for name, kind in KINDS.items()
    for density in DENSITIES
    for view, options in VIEWS.items()
    if view == "live" or density == LEVELS[11]
    for seed in range(3)
}


def tops(
    results: Results, name: str, density: float, view: str = "live", *, scaled: bool = False
) -> dict[int, float]:
    """log10 of the top eigenvalue of each seed, on request times the squared norm; NaN below 0."""
    found = {}
    for (of, share, seed, way), result in results.items():
        if (of, share, way) == (name, density, view):
            value = result.eigenvalues[0] * (result.weight_norm**2 if scaled else 1)
            found[seed] = float(np.log10(value)) if value > 0 else np.nan
    return found


def lower(name: str, *, scaled: bool = False) -> Callable[[Results], list[float]]:
    """Return how far an activation is below ReLU, a number a seed: the mean over the sparsities."""

    def gaps(results: Results) -> list[float]:
        at = [[tops(results, of, d, scaled=scaled) for of in ("ReLU", name)] for d in DENSITIES]
        at = [pair for pair in at if all(pair)]
        common = set.intersection(*(set(a) & set(b) for a, b in at)) if at else set()
        return [float(np.mean([a[seed] - b[seed] for a, b in at])) for seed in sorted(common)]

    return gaps


CLAIMS = (
    *(
        Claim(
            says=f"The top Hessian eigenvalue is smaller with {name} than with ReLU",
            quote="Comparatively smaller eigenvalues of soft-activation (Swish/Mish) based sparse "
            "NN wrt. ReLU based networks indicate the presence of high smoothness",
            source="caption",
            margin=lower(name),
            unit="ratio (log10)",
        )
        for name in ("Swish", "Mish")
    ),
    *(
        Claim(
            says="The top Hessian eigenvalue times the squared norm of the weights is smaller with "
            f"{name} than with ReLU",
            quote="Top eigenvalue of Hessian can act as a proxy for smoothness",
            source="section 3.3",
            margin=lower(name, scaled=True),
            unit="ratio (log10)",
        )
        for name in ("Swish", "Mish")
    ),
)


def _marks(ax: Axes, results: Results, *, scaled: bool) -> None:
    """All eigenvalues on one panel: sparsities side by side, in each the activations."""
    shares = [d for d in DENSITIES if any(density == d for _, density, _, _ in results)]
    for i, (name, marker) in enumerate(MARKERS.items()):
        colour = style.COLOUR_OF[name]
        for view in ("live",) if scaled else ("live", "dense"):
            face, shift = (colour, 0.0) if view == "live" else ("white", 0.13)
            for j, d in enumerate(shares):
                logs = [v for v in tops(results, name, d, view, scaled=scaled).values() if v == v]
                if logs:
                    x, y = j + 0.3 * (i - 1) + shift, 10 ** np.array(logs)
                    ax.plot(
                        x, 10 ** np.mean(logs), marker, color=colour, mfc=face, ms=4, zorder=3,
                        label=name if view == "live" else f"{name}, dead weights too",
                    )  # fmt: skip
                    if len(logs) > 1:
                        ax.plot([x] * len(y), y, ".-", color=colour, ms=2.5, lw=0.5, zorder=2)
    ax.set(yscale="log", xlabel="sparsity (%)", xlim=(-0.5, len(shares) - 0.5))
    ax.set_xticks(range(len(shares)), [sparsity(d) for d in shares])
    ax.grid(False, axis="x")
    low, high = ax.get_ylim()
    ax.set_ylim(low / 1.6, high * 1.6)  # so that one tick is there at least
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def draw(results: Results, scale: Scale) -> Figure:
    """Eigenvalues on the left, in units that ignore the scale of the weights on the right."""
    fig = style.new_figure(style.COLUMN, 2.4)
    left, right = fig.subplots(1, 2, width_ratios=(1.5, 1))
    _marks(left, results, scaled=False)
    _marks(right, results, scaled=True)
    left.set_ylabel("top Hessian eigenvalue λ")
    right.set_ylabel("λ · |w|²")
    named = dict(zip(*reversed(left.get_legend_handles_labels()), strict=True))
    handles = [named[name] for name in KINDS if name in named]
    labels = [name for name in KINDS if name in named]
    hollow = [handle for label, handle in named.items() if label not in KINDS]
    if hollow:
        handles, labels = [*handles, hollow[0]], [*labels, "dead weights too"]
    fig.legend(
        handles, labels, loc="outside upper center", ncols=4, columnspacing=1, handletextpad=0.1
    )
    return fig
