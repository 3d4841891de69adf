"""The trainings of ToST's figures and tables, as its paper has them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from training.config import Record, Run
from training.masks import METHODS
from training.masks.dense import Dense
from training.tweaks import TWEAKS, Tweak

Options = dict[str, Any]

# by the paper's names
KINDS: dict[str, dict[str, Options]] = {
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


recipe = cache(Run.load)


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
    """A training of ResNet-18 on CIFAR-100 from a lottery ticket, or what else is asked for.

    Lottery tickets are those of one chain: their seeds differ in the order of the data. The plain
    net and ToST record eigenvalues and gradient flow at the paper's 90 %.
    """
    paper = recipe(f"tost_{net}_{data}")
    lottery = mask == "LTH" and density < 1
    method = METHODS[MASKS[mask]](density=density) if density < 1 else Dense()
    watched = (mask, density, net, data) == ("LTH", 0.1, "resnet18", "cifar100")
    recorded = watched and kind in ("base", "ToST") and activation == "relu"
    tweaks: dict[str, Tweak] = {name: TWEAKS[name](**o) for name, o in KINDS[kind].items()}
    return replace(
        paper,
        on_disconnected="warn" if density < 1 else "error",  # a net cut through stays at chance
        seed=seed,
        mask_seed=0 if lottery and seed else None,
        model=replace(paper.model, activation=activation),
        mask=method,
        tweaks=tweaks,
        record=Record(gradient_flow=recorded, eigenvalue_every=int(recorded)),
    )
