"""The trainings of the forerunner's figures, as its paper has them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from training.config import Record, Run
from training.masks.dense import Dense
from training.masks.lottery import Lottery
from training.masks.magnitude import Magnitude
from training.tweaks import TWEAKS, grouped

ROUNDS = range(1, 17)
LEVELS = {k: Lottery(0.8**k).density for k in ROUNDS}  # shares that are left: 80 % to 2.8 %

# by the paper's names: tweaks, then a soft activation for good
KINDS: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "skip": {"ghost_skips": {"schedule": "none", "kind": "identity_bn"}},
    "Swish": {},
    "Mish": {},
    "LS": {"smoothing": {}},
    "LRsI": {"rescale": {}},
    "AT": grouped(["at"]),
    "TRT": grouped(["trt"]),
    "AT+TRT": grouped(["at+trt"]),
    "AT+TRT with KD": {**grouped(["at"]), "rescale": {}, "distillation": {}},
}


recipe = cache(Run.load)


def run(
    kind: str = "vanilla",
    density: float = LEVELS[11],
    seed: int = 0,
    *,
    net: str = "resnet18",
    data: str = "cifar100",
    rewound: bool = False,
    oneshot: bool = False,
    recorded: bool = False,
) -> Run:
    """A training of ResNet-18 on CIFAR-100 from a lottery ticket, or what else is asked for.

    Tickets are those of one chain: their seeds differ in the order of the data.

    Args:
        kind: One of `KINDS`.
        density: Share of the weights that is left; 1 for the dense net.
        seed: Seed.
        net: The net.
        data: The data set.
        rewound: Start from epoch 33 of the dense training, not from its initialisation.
        oneshot: A mask of one cut of the dense net.
        recorded: Record the top eigenvalue after every epoch.
    """
    paper = recipe(f"lottery_{net}_{data}")
    method = Magnitude(density) if oneshot else Lottery(density)
    activation: Any = kind.lower() if kind in ("Swish", "Mish") else "relu"
    early = density == LEVELS[11] and kind in ("vanilla", "skip", "LS", "LRsI")
    kept = early and (net, data, rewound, oneshot) == ("resnet18", "cifar100", False, False)
    return replace(
        paper,
        on_disconnected="warn" if density < 1 else "error",  # a net cut through stays at chance
        seed=seed,
        mask_seed=0 if density < 1 and seed else None,
        rewind=33 / 180 if rewound else 0.0,
        model=replace(paper.model, activation=activation),
        mask=method if density < 1 else Dense(),
        tweaks={name: TWEAKS[name](**options) for name, options in KINDS[kind].items()},
        record=Record(checkpoint_epochs=(5,) if kept else (), eigenvalue_every=int(recorded)),
    )
