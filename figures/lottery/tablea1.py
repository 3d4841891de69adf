"""Lottery, Table A1: activation sparsity after each stage, with ReLU and with Swish.

Share of activations with |a| <= 0.01 on the test set, after the last block of each stage, at seven
sparsities of the weights; the paper has no numbers for 91 %. The paper's claims: with ReLU, more
activations are zero in deeper layers; with Swish, fewer than 1 % in any layer. (The paper's own
numbers for ReLU fall in layers 2 to 4 as the weights get sparser.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from figures.claims import Claim
from figures.lottery.runs import LEVELS, run
from figures.measurement import ALL_SEEDS, Measurement, Results, by_seed
from figures.scales import Scale
from sparsediag.core.estimate import Estimate
from sparsediag.plotting.accuracy import sparsity
from sparsediag.plotting.tables import Cell, Table

# percent, layers 1 to 4, by round of the lottery; Table A1
PAPER = {
    "ReLU": {
        1: (28.93, 49.23, 62.36, 65.50),
        2: (32.29, 47.46, 60.40, 65.69),
        5: (35.18, 46.29, 58.01, 64.19),
        6: (35.70, 50.50, 56.30, 64.47),
        15: (27.43, 38.26, 39.78, 56.06),
        16: (27.99, 36.63, 39.59, 53.18),
    },
    "Swish": {
        1: (0.33, 0.25, 0.22, 0.16),
        2: (0.31, 0.25, 0.23, 0.16),
        5: (0.29, 0.25, 0.23, 0.16),
        6: (0.31, 0.25, 0.23, 0.16),
        15: (0.30, 0.26, 0.27, 0.23),
        16: (0.39, 0.24, 0.28, 0.24),
    },
}
ROUNDS = (1, 2, 5, 6, 11, 15, 16)
KINDS = {"ReLU": "vanilla", "Swish": "Swish"}
MEASUREMENTS = {
    (name, LEVELS[k], seed): Measurement(run(kind, LEVELS[k], seed), "activations", split="test")
    for name, kind in KINDS.items()
    for k in ROUNDS
    for seed in ALL_SEEDS
}


def small_shares(activations: Any) -> np.ndarray:
    """Return the share of small activations after each stage, in percent."""
    return 100 * np.asarray(activations.small[np.asarray(activations.stage_last)])


def shares_by_seed(results: Results, name: str) -> dict[int, np.ndarray]:
    """Return the shares of each seed, (densities, layers), at densities that all seeds have."""
    shares = {(d, s): small_shares(result) for (of, d, s), result in results.items() if of == name}
    seeds = sorted({seed for _, seed in shares})
    densities = sorted({d for d, _ in shares if all((d, seed) in shares for seed in seeds)})
    return {s: np.array([shares[d, s] for d in densities]) for s in seeds if densities}


CLAIMS = (
    Claim(
        says="With ReLU, more activations are small in layer 4 than in layer 1",
        quote="Activation sparsity of the network increases with the depth for ReLU activation",
        source="section A1.1",
        margin=lambda results: {
            seed: float((shares[:, -1] - shares[:, 0]).mean())
            for seed, shares in shares_by_seed(results, "ReLU").items()
        },
        paper=float(np.mean([row[-1] - row[0] for row in PAPER["ReLU"].values()])),
    ),
    Claim(
        says="With Swish, fewer than 1 % of the activations are small in every layer",
        quote="When ReLU is replaced with smooth activation (Swish), the activation sparsity of "
        "the network drops below 1%",
        source="section A1.1",
        margin=lambda results: {
            seed: 1 - float(shares.max())
            for seed, shares in shares_by_seed(results, "Swish").items()
        },
        at_least=0,
        paper=1 - max(max(row) for row in PAPER["Swish"].values()),
    ),
)


def table(results: Results, scale: Scale) -> Table:
    """Return a row for each sparsity and activation; the paper's share and ours by layer."""
    rows: list[tuple[str, tuple[Cell, ...], tuple[Cell, ...]]] = []
    for k in ROUNDS:
        for name in KINDS:
            shares = [small_shares(r) for r in by_seed(results, name, LEVELS[k]).values()]
            if shares:
                here = tuple(Estimate.of(of_layer) for of_layer in zip(*shares, strict=True))
                paper = PAPER[name].get(k, (None,) * 4)
                rows.append((f"{sparsity(LEVELS[k])} %, {name}", paper, here))
    title = "share of activations with |a| ≤ 0.01 after layers 1 to 4 (%)"
    return Table.paper_and_here(title, "sparsity", map(str, range(1, 5)), rows)
