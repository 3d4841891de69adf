"""The trainings of the earlier paper's figures, as the paper has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

from figures.measurement import Measurement, history_grid
from training.config import Record, Run
from training.masks.dense import Dense
from training.masks.lottery import Lottery
from training.masks.magnitude import Magnitude
from training.tweaks import TWEAKS, expand_groups

LEVELS = {k: Lottery(0.8**k).density for k in range(1, 17)}  # round -> density, 80 % to 2.8 %
REWOUND = ", rewound"  # ends the name of a kind that starts from epoch 33 of the dense training

# the paper's names -> tweaks; Swish and Mish replace the activation permanently
KINDS: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "skip": {"ghost_skips": {"schedule": "none", "kind": "identity_bn"}},
    "Swish": {},
    "Mish": {},
    "LS": {"smoothing": {}},
    "LRsI": {"rescale": {}},
    "AT": expand_groups(["at"]),
    "TRT": expand_groups(["trt"]),
    "AT+TRT": expand_groups(["at+trt"]),
    "AT+TRT with KD": {**expand_groups(["at"]), "rescale": {}, "distillation": {}},
}
load_recipe = cache(Run.load)


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
    """Return a training; the default is ResNet-18 on CIFAR-100 from a lottery ticket.

    Each seed has a mask and an order of the data of its own.

    Args:
        kind: One of `KINDS`.
        density: Share of the weights that remain; 1 for the dense network.
        seed: Seed.
        net: The network.
        data: The data set.
        rewound: Start from epoch 33 of the dense training, not from its initialisation.
        oneshot: Take the mask from a single pruning of the dense network.
        recorded: Record the top eigenvalue after every epoch.
    """
    paper = load_recipe(f"lottery_{net}_{data}")
    mask = Magnitude(density) if oneshot else Lottery(density)
    activation: Any = kind.lower() if kind in ("Swish", "Mish") else "relu"
    in_figure_5 = density == LEVELS[11] and kind in ("vanilla", "skip", "LS", "LRsI")
    default = (net, data, rewound, oneshot) == ("resnet18", "cifar100", False, False)
    return replace(
        paper,
        on_disconnected="warn" if density < 1 else "error",  # else it stays at chance
        seed=seed,
        rewind=33 / 180 if rewound else 0.0,
        model=replace(paper.model, activation=activation),
        mask=mask if density < 1 else Dense(),
        tweaks={name: TWEAKS[name](**options) for name, options in KINDS[kind].items()},
        record=Record(
            checkpoint_epochs=(5,) if in_figure_5 and default else (),
            eigenvalue_every=int(recorded),
        ),
    )


def all_levels(kinds: Iterable[str], **options: Any) -> dict[tuple[str, float, int], Measurement]:
    """Return the histories of kinds at all sparsities, and of the plain dense network."""
    dense = history_grid(run, ("vanilla",), (1,), **options)
    return dense | history_grid(run, kinds, LEVELS.values(), **options)


def rewound_levels(kinds: Iterable[str]) -> dict[tuple[str, float, int], Measurement]:
    """Return the histories of kinds at all sparsities, rewound."""
    grid = history_grid(run, kinds, LEVELS.values(), rewound=True)
    return {(kind + REWOUND, density, seed): m for (kind, density, seed), m in grid.items()}
