"""ToST, Table 1: activation sparsity after each stage, with ReLU and with smooth activations.

Share of activations with |a| <= 0.01 on the test set, after the last block of each stage. The
paper's claim: ReLU makes 27 to 58 % of them zero, Swish and Mish next to none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.need import Need
from sparsediag import plotting

# per cent, layers 1 to 4; ToST, Table 1
PAPER = {
    "ReLU": (27.14, 39.33, 39.48, 57.93),
    "Swish": (0.31, 0.26, 0.24, 0.20),
    "Mish": (1.09, 1.14, 1.03, 0.95),
}
NEEDS = {
    (label, seed): Need("activations", activation=label.lower(), seed=seed, split="test")
    for label in PAPER
    for seed in range(3)
}
HEAD = ("activation", "", "layer 1", "layer 2", "layer 3", "layer 4")


def rows(results: dict[tuple[str, int], Any]) -> list[list[str]]:
    """The paper's row and the measured one for each activation, in per cent."""
    found = []
    for label, paper in PAPER.items():
        small = np.array(
            [100 * r.small[r.stage_last] for (of, _), r in results.items() if of == label]
        )
        mean = [f"{value:.2f}" for value in small.mean(0)]
        if len(small) > 1:
            spread = small.std(0, ddof=1)
            mean = [f"{m} ± {s:.2f}" for m, s in zip(mean, spread, strict=True)]
        found.append([label, "paper", *(f"{value:.2f}" for value in paper)])
        found.append(["", "measured", *mean])
    return found


def markdown(results: dict[tuple[str, int], Any]) -> str:
    """The table as Markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *rows(results)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(results: dict[tuple[str, int], Any]) -> Figure:
    """The table as a picture."""
    fig = plotting.figure(4.6, 1.8)
    ax = fig.add_subplot()
    ax.axis("off")
    table = ax.table(rows(results), colLabels=HEAD, loc="center", cellLoc="right", edges="B")
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    table.auto_set_column_width(range(len(HEAD)))
    table.scale(1, 1.25)
    ax.set_title("share of activations with |a| ≤ 0.01 (%)", loc="left")
    return fig
