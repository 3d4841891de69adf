"""ToST's tweaks. One file each, one line each here."""

from typing import Any

from training.tweaks.base import Objective, TrainingContext, Tweak, cross_entropy
from training.tweaks.distillation import Distillation
from training.tweaks.ghosts import GhostNeurons, GhostSkips
from training.tweaks.rescale import Rescale
from training.tweaks.smoothing import Smoothing

__all__ = [
    "GROUPS",
    "TWEAKS",
    "Objective",
    "TrainingContext",
    "Tweak",
    "cross_entropy",
    "expand_groups",
]

TWEAKS: dict[str, type[Tweak]] = {
    "ghost_neurons": GhostNeurons,
    "ghost_skips": GhostSkips,
    "rescale": Rescale,
    "smoothing": Smoothing,
    "distillation": Distillation,
}

# tweaks that the papers use together: those of ToST, and the architecture tweaks (AT) and training
# tweaks (TRT) before it
AT: dict[str, dict[str, Any]] = {
    "ghost_neurons": {"schedule": "none"},
    "ghost_skips": {"schedule": "none", "kind": "identity_bn"},
}
TRT: dict[str, dict[str, Any]] = {"rescale": {}, "smoothing": {}}
GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "tost": {"ghost_neurons": {}, "ghost_skips": {}, **TRT},
    "at": AT,
    "trt": TRT,
    "at+trt": AT | TRT,
}


def expand_groups(names: list[str]) -> dict[str, dict[str, Any]]:
    """Return the options of tweaks that are given by their names or by those of groups.

    >>> expand_groups(["trt"])
    {'rescale': {}, 'smoothing': {}}
    """
    expanded: dict[str, dict[str, Any]] = {}
    for name in names:
        for tweak, options in GROUPS.get(name, {name: {}}).items():
            expanded[tweak] = options | expanded.get(tweak, {})
    return expanded
