"""ToST, Table 1: activation sparsity after each stage, with ReLU and with smooth activations.

Share of activations with |a| <= 0.01 on the test set, after the last block of each stage of a
ResNet-18 with 90 % sparsity (lottery tickets, CIFAR-100), and the share that is exactly 0. The
paper's claim: with ReLU 27 to 58 % of the activations are inactive, with Swish and Mish almost
none.
"""

from __future__ import annotations

import numpy as np

from figures.claims import Claim
from figures.effect_sizes import Margin, mean, seed_differences
from figures.measurement import ALL_SEEDS, Measurement, Results, by_seed
from figures.scales import Scale
from figures.tost.runs import run
from sparsediag.core.estimate import Estimate
from sparsediag.plotting.tables import Cell, Table

# percent, layers 1 to 4; ToST, Table 1
PAPER = {
    "ReLU": (27.14, 39.33, 39.48, 57.93),
    "Swish": (0.31, 0.26, 0.24, 0.20),
    "Mish": (1.09, 1.14, 1.03, 0.95),
}
MEASUREMENTS = {
    (name, seed): Measurement(run(activation=name.lower(), seed=seed), "activations", split="test")
    for name in PAPER
    for seed in ALL_SEEDS
}


def stages(results: Results, activation: str, kind: str = "small") -> dict[int, np.ndarray]:
    """Return the share in percent after each stage, by seed; kind is "small" or "zeros"."""
    return {
        seed: 100 * np.asarray(getattr(result, kind))[np.asarray(result.stage_last)]
        for seed, result in by_seed(results, activation).items()
    }


def more_with_relu(activation: str) -> Margin:
    """Return how many more activations are small with ReLU, the mean over stages, by seed."""

    def margin(results: Results) -> dict[int, float]:
        relu, smooth = (
            {seed: float(shares.mean()) for seed, shares in stages(results, of).items()}
            for of in ("ReLU", activation)
        )
        return seed_differences(relu, smooth)

    return margin


CLAIMS = (
    Claim(
        says="More activations are small with ReLU than with Swish and Mish",
        quote="non-smooth nature of ReLU is an obstacle to sparse retraining because it leads to "
        "high activation sparsity",
        source="section 2.2",
        margin=mean(more_with_relu("Swish"), more_with_relu("Mish")),
        paper=float(np.mean(PAPER["ReLU"]) - np.mean([PAPER["Swish"], PAPER["Mish"]])),
    ),
)


def table(results: Results, scale: Scale) -> Table:
    """Return a row for each activation, then the rows of exact zeros."""
    empty = (None,) * 4
    rows: list[tuple[str, tuple[Cell, ...], tuple[Cell, ...]]] = []
    for kind, suffix in (("small", ""), ("zeros", ", exactly 0")):
        for activation, paper in PAPER.items():
            by_stage = zip(*stages(results, activation, kind).values(), strict=True)
            here = tuple(Estimate.of(shares) for shares in by_stage)
            if kind == "small" or here:
                rows.append(
                    (activation + suffix, paper if kind == "small" else empty, here or empty)
                )
    columns = [f"layer {i}" for i in range(1, 5)]
    title = "share of activations with |a| ≤ 0.01 (%)"
    return Table.paper_and_here(title, "activation", columns, rows)
