"""ToST, Table 1: activation sparsity after each stage, with ReLU and with smooth activations.

Share of activations with |a| <= 0.01 on the test set, after the last block of each stage of a
ResNet-18 at 90 % sparsity (lottery tickets, CIFAR-100), and the share that is exactly 0. The
paper's claim: ReLU silences 27 to 58 % of the activations, Swish and Mish next to none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from figures.claims import Claim
from figures.estimate import Estimate
from figures.measurement import Need
from figures.scales import Scale
from figures.tables import Table
from figures.tost._runs import run
from sparsediag.diagnostics.activations import Activations

# per cent, layers 1 to 4; ToST, Table 1
PAPER = {
    "ReLU": (27.14, 39.33, 39.48, 57.93),
    "Swish": (0.31, 0.26, 0.24, 0.20),
    "Mish": (1.09, 1.14, 1.03, 0.95),
}
NEEDS = {
    (label, seed): Need(run(activation=label.lower(), seed=seed), "activations", split="test")
    for label in PAPER
    for seed in range(3)
}
Results = Mapping[Any, Activations]


def stages(results: Results, label: str, kind: str = "small") -> dict[int, np.ndarray]:
    """Share in per cent after the last block of each stage, for each seed; "small" or "zeros"."""
    return {
        seed: 100 * np.asarray(getattr(found, kind))[np.asarray(found.stage_last)]
        for (of, seed), found in results.items()
        if of == label
    }


def above(label: str) -> Callable[[Results], list[float]]:
    """Return how much more of the activations is small with ReLU, averaged over stages, by seed."""

    def more(results: Results) -> list[float]:
        relu, smooth = stages(results, "ReLU"), stages(results, label)
        return [float(relu[s].mean() - smooth[s].mean()) for s in sorted({*relu} & {*smooth})]

    return more


CLAIMS = tuple(
    Claim(
        says=f"More activations of a sparse net are small with ReLU than with {label}",
        quote="non-smooth nature of ReLU is an obstacle to sparse retraining because it leads to "
        "high activation sparsity",
        source="section 2.2",
        margin=above(label),
        paper=float(np.mean(PAPER["ReLU"]) - np.mean(PAPER[label])),
    )
    for label in ("Swish", "Mish")
)


def table(results: Results, scale: Scale) -> Table:
    """A row an activation, with the paper's share and ours for each stage; then exact zeros."""
    rows: list[tuple[str | float | Estimate | None, ...]] = []
    for kind, told in (("small", ""), ("zeros", ", exactly 0")):
        for label, paper in PAPER.items():
            found = list(stages(results, label, kind).values())
            here: list[Estimate | None] = [Estimate.of(v) for v in zip(*found, strict=True)]
            beside = paper if kind == "small" else (None,) * 4
            if kind == "small" or found:
                pairs = zip(beside, here or [None] * 4, strict=True)
                cells = [cell for pair in pairs for cell in pair]
                rows.append((label + told, *cells))
    heads = [f"layer {i}, {who}" for i in range(1, 5) for who in ("paper", "here")]
    title = "share of activations with |a| ≤ 0.01 (%)"
    return Table(title, ("activation", *heads), tuple(rows))
