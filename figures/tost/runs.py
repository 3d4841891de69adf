"""The trainings of ToST's figures and tables, as its paper has them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from training.config import Record, Run
from training.masks import METHODS
from training.masks.dense import Dense
from training.tweaks import TWEAKS, Tweak

# the paper's names for tweaks -> their options
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "base": {},
    "GSk": {"ghost_skips": {}},
    "GSw": {"ghost_neurons": {}},
    "LRsI": {"rescale": {}},
    "LS": {"smoothing": {}},
    "ToST": {"ghost_skips": {}, "ghost_neurons": {}, "rescale": {}, "smoothing": {}},
    "GSk, permanent": {"ghost_skips": {"schedule": "none"}},
    "GSw, permanent": {"ghost_neurons": {"schedule": "none"}},
    "GSk, after decay": {"ghost_skips": {"until": 0.75}},
    "GSw, after decay": {"ghost_neurons": {"until": 0.75}},
    "GSk, abrupt": {"ghost_skips": {"schedule": "step", "until": 0.75}},
    "GSw, abrupt": {"ghost_neurons": {"last_beta": 1.0, "until": 0.75}},  # Swish, then ReLU
    "GSk, released": {"ghost_skips": {"kind": "conv1x1_bn"}},
}
SINGLE = ("GSk", "GSw", "LRsI", "LS")
MASKS = {
    "Random": "random",
    "SNIP": "snip",
    "GraSP": "grasp",
    "SynFlow": "synflow",
    "LTH": "lottery",
}
load_recipe = cache(Run.load)


def run(
    kind: str = "base",
    density: float = 0.1,
    seed: int = 0,
    *,
    mask: str = "LTH",
    net: str = "resnet18",
    data: str = "cifar100",
    activation: Any = "relu",
) -> Run:
    """Return a training; the default is ResNet-18 on CIFAR-100 from a lottery ticket.

    Each seed has a mask and an order of the data of its own.
    At the paper's 90 % sparsity the plain network and ToST record eigenvalues and gradient flow.

    Args:
        kind: One of `KINDS`.
        density: Share of the weights that remain; 1 for the dense network.
        seed: Seed.
        mask: One of `MASKS`.
        net: The network.
        data: The data set.
        activation: The activation function.
    """
    paper = load_recipe(f"tost_{net}_{data}")
    default = (mask, density, net, data) == ("LTH", 0.1, "resnet18", "cifar100")
    recorded = default and kind in ("base", "ToST") and activation == "relu"
    tweaks: dict[str, Tweak] = {name: TWEAKS[name](**o) for name, o in KINDS[kind].items()}
    return replace(
        paper,
        on_disconnected="warn" if density < 1 else "error",  # else it stays at chance
        seed=seed,
        model=replace(paper.model, activation=activation),
        mask=METHODS[MASKS[mask]](density=density) if density < 1 else Dense(),
        tweaks=tweaks,
        record=Record(gradient_flow=recorded, eigenvalue_every=int(recorded)),
    )
