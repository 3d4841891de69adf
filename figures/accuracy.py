"""Accuracies of trainings that an item compares: labels are (kind, density, seed)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from figures.estimate import Estimate

MARKERS = "os^Dv"
LABEL = 0.2  # inches that a sparsity takes below an axis
Results = Mapping[Any, Any]


def accuracy(rows: Sequence[Mapping[str, Any]]) -> float:
    """Test accuracy at the best validation epoch, in percent, from a history."""
    return 100 * float(next(row["test_accuracy"] for row in rows if row.get("best")))


def seeds(results: Results, kind: Any, density: float) -> dict[int, float]:
    """Accuracy of each seed that was trained."""
    return {
        seed: accuracy(rows)
        for (of, share, seed), rows in results.items()
        if of == kind and share == density
    }


def estimate(results: Results, kind: Any, density: float) -> Estimate | None:
    """Mean accuracy over the seeds, or None where none was trained."""
    found = seeds(results, kind, density)
    return Estimate.of(found.values()) if found else None


def best(results: Results, kinds: Iterable[Any], density: float) -> Estimate | None:
    """The estimate of the kind with the highest mean."""
    found = [e for kind in kinds if (e := estimate(results, kind, density))]
    return max(found, key=lambda e: e.mean, default=None)


def ladder(
    ax: Axes,
    results: Results,
    kinds: Mapping[Any, tuple[str, str]],
    *,
    dense: Sequence[Any] = (),
    inches: float = 3.0,
) -> None:
    """Accuracy over sparsity, with intervals where there are seeds.

    Args:
        ax: Where to draw.
        results: By (kind, density, seed).
        kinds: Kind -> (name in the legend, colour).
        dense: Kinds whose dense nets are drawn as dashed lines.
        inches: Width of the axis; where it is narrow, fewer sparsities are written.
    """
    shares = sorted({d for kind, d, _ in results if kind in kinds and d < 1})
    for i, (kind, (name, colour)) in enumerate(kinds.items()):
        found = {d: e for d in shares if (e := estimate(results, kind, d))}
        if found:
            x = [d * 1.012 ** (i - (len(kinds) - 1) / 2) for d in found]  # bars side by side
            mean = np.array([e.mean for e in found.values()])
            half = np.array([e.half if e.half < np.inf else np.nan for e in found.values()])
            ax.errorbar(
                x, mean, half, color=colour, label=name, marker=MARKERS[i % len(MARKERS)],
                markersize=2.8, linewidth=1, elinewidth=0.6, capsize=1.5,
            )  # fmt: skip
        if kind in dense and (level := estimate(results, kind, 1)):
            ax.axhline(level.mean, color=colour, linewidth=0.8, linestyle="--")
    sparsity_axis(ax, shares, inches=inches)
    ax.set_ylabel("test accuracy (%)")


def sparsity_axis(ax: Axes, shares: Sequence[float], *, inches: float = 3.0) -> None:
    """An axis of densities, dense to sparse, that tells as many sparsities as it has room for."""
    ax.set_xscale("log")
    ax.set_xlabel("sparsity (%)")
    marks: list[float] = []
    if shares:
        low, high = min(shares) / 1.15, max(shares) * 1.15
        ax.set_xlim(high, low)
        apart = (high / low) ** (LABEL / inches)
        for share in sorted(shares):
            if not marks or share > marks[-1] * apart:
                marks.append(share)
    ax.set_xticks(marks[::-1], [sparsity(share) for share in marks[::-1]])
    ax.minorticks_off()


def sparsity(density: float) -> str:
    """The sparsity of a density in percent as the papers write it: rounded down from 94 on.

    >>> sparsity(0.1), sparsity(0.8**6), sparsity(0.8**14), sparsity(0.8**16), sparsity(0.0032)
    ('90', '74', '95', '97', '99.6')
    """
    share = 100 * (1 - density)
    if density <= 0.01:
        return f"{math.floor(10 * share + 1e-6) / 10:.1f}"
    return f"{math.floor(share + 1e-6) if density < 0.06 else round(share)}"
