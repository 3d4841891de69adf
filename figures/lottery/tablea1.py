"""Lottery, Table A1: activation sparsity after each stage, with ReLU and with Swish.

Share of activations with |a| <= 0.01 on the test set, after the last block of each stage, at seven
sparsities of the weights; the paper has no numbers for 91 %. The paper's claims: ReLU makes more
activations zero in deeper layers, Swish fewer than 1 % anywhere. (The paper's own numbers for ReLU
fall in layers 2 to 4 as the weights get sparser.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from figures.accuracy import sparsity
from figures.claims import Claim, Results
from figures.estimate import Estimate
from figures.lottery._runs import LEVELS, run
from figures.measurement import Need
from figures.scales import Scale
from figures.tables import Cell, Table

SEEDS = 1
LAYERS = range(1, 5)
# per cent, layers 1 to 4, by round of the lottery; the forerunner, Table A1
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
NEEDS = {
    (name, LEVELS[k], seed): Need(run(kind, LEVELS[k], seed), "activations", split="test")
    for name, kind in KINDS.items()
    for k in ROUNDS
    for seed in range(3)
}


def shares(result: Any) -> np.ndarray:
    """Small activations after each stage, in per cent."""
    small: np.ndarray = result.small[np.asarray(result.stage_last)]
    return 100 * small


def by_seed(results: Results, name: str) -> list[np.ndarray]:
    """Shares of each seed, (densities, layers), at the densities that all its seeds have."""
    found = {(d, s): shares(result) for (of, d, s), result in results.items() if of == name}
    seeds = sorted({s for _, s in found})
    densities = sorted(d for d in {d for d, _ in found} if all((d, s) in found for s in seeds))
    return [np.array([found[d, s] for d in densities]) for s in seeds if densities]


CLAIMS = (
    Claim(
        says="With ReLU, more activations are small in layer 4 than in layer 1",
        quote="Activation sparsity of the network increases with the depth for ReLU activation",
        source="section A1.1",
        margin=lambda results: [
            float((found[:, -1] - found[:, 0]).mean()) for found in by_seed(results, "ReLU")
        ],
        paper=float(np.mean([row[-1] - row[0] for row in PAPER["ReLU"].values()])),
    ),
    Claim(
        says="With Swish, fewer than 1 % of the activations are small in each layer",
        quote="When ReLU is replaced with smooth activation (Swish), the activation sparsity of "
        "the network drops below 1%",
        source="section A1.1",
        margin=lambda results: [1 - float(found.max()) for found in by_seed(results, "Swish")],
        paper=1 - max(max(row) for row in PAPER["Swish"].values()),
    ),
)


def table(results: Results, scale: Scale) -> Table:
    """A row a sparsity and activation; the paper's share and ours for each layer."""
    rows: list[tuple[Cell, ...]] = []
    for k in ROUNDS:
        for name in KINDS:
            seeds = [
                shares(result)
                for (of, density, _), result in results.items()
                if of == name and density == LEVELS[k]
            ]
            if seeds:
                cells: list[Cell] = []
                for layer in LAYERS:
                    paper = PAPER[name].get(k)
                    cells.append(paper[layer - 1] if paper else None)
                    cells.append(Estimate.of(float(found[layer - 1]) for found in seeds))
                rows.append((f"{sparsity(LEVELS[k])} %, {name}", *cells))
    heads = [f"{layer}, {who}" for layer in LAYERS for who in ("paper", "here")]
    title = "share of activations with |a| ≤ 0.01 after layers 1 to 4 (%)"
    return Table(title, ("sparsity", *heads), tuple(rows))
