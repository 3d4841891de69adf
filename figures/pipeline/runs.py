"""The trainings of the pruning pipeline's figures and tables, as its paper has them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from training.config import Run
from training.masks import METHODS

# masks at initialisation; the paper seems to use SynFlow with one step, as its code base does
TRAINING_FREE: dict[str, tuple[str, dict[str, Any]]] = {
    "Random": ("random", {}),
    "SNIP": ("snip", {}),
    "GraSP": ("grasp", {}),
    "SynFlow, 1 step": ("synflow", {"steps": 1}),
}
MANY_STEPS = "SynFlow, 100 steps"
# masks by magnitude after a first training with ZerO or learned masks; ToST is in the second one
LEARNED = {
    "vanilla": (),
    "+ ZerO": ("ZerO",),
    "+ Mask": ("Mask",),
    "+ ZerO, Mask": ("ZerO", "Mask"),
    "+ ToST": ("ToST",),
    "+ ZerO, ToST": ("ZerO", "ToST"),
    "+ Mask, ToST": ("Mask", "ToST"),
    "+ All": ("ZerO", "Mask", "ToST"),
}
NO_SIZE = "+ ZerO, Mask, size 0"  # no penalty on the size of the learned mask
RECIPES = {"mlp": "pipeline_mlp_mnist", "vgg16": "pipeline_vgg16_cifar10"}

load_recipe = cache(Run.load)


def run(kind: str, density: float, seed: int = 0, *, net: str = "mlp") -> Run:
    """Return a training at a density, also if the mask disconnects the network.

    Args:
        kind: A key of `TRAINING_FREE`, `MANY_STEPS` or "RigL": a single training from the
            initialisation. A key of `LEARNED`, or `NO_SIZE`: the second of two trainings, which
            continues with the weights of the first.
        density: Share of the weights that remain.
        seed: Seed.
        net: "mlp" on MNIST or "vgg16" on CIFAR-10.
    """
    paper = replace(load_recipe(RECIPES[net]), seed=seed, on_disconnected="warn")
    single = {**TRAINING_FREE, MANY_STEPS: ("synflow", {}), "RigL": ("rigl", {})}
    if kind in single:
        method, options = single[kind]
        mask = METHODS[method](density=density, **options)
        return replace(paper, mask=mask, init="default", rewind=0.0, tweaks={})
    parts = LEARNED["+ ZerO, Mask" if kind == NO_SIZE else kind]
    penalty: dict[str, float] = {"lambda_l1": 0.0} if kind == NO_SIZE else {}
    learned = replace(paper.mask, density=density, **penalty)
    return replace(
        paper,
        mask=learned if "Mask" in parts else METHODS["magnitude"](density=density),
        init="zero_hadamard" if "ZerO" in parts else "default",
        tweaks=paper.tweaks if "ToST" in parts else {},
    )
