"""ToST's tweaks. One file each, one line each here."""

from typing import Any

from training.tweaks.base import Objective, TrainingContext, Tweak, cross_entropy
from training.tweaks.distillation import Distillation
from training.tweaks.ghosts import GhostNeurons, GhostSkips
from training.tweaks.rescale import Rescale
from training.tweaks.smoothing import Smoothing

__all__ = ["GROUPS", "TWEAKS", "Objective", "TrainingContext", "Tweak", "cross_entropy", "grouped"]

TWEAKS: dict[str, type[Tweak]] = {
    "ghost_neurons": GhostNeurons,
    "ghost_skips": GhostSkips,
    "rescale": Rescale,
    "smoothing": Smoothing,
    "distillation": Distillation,
}

# tweaks that the papers use together: ToST's, and the architecture and training tweaks before it
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


def grouped(names: list[str]) -> dict[str, dict[str, Any]]:
    """The options of tweaks that are asked for by name, of their own or of a group.

    >>> grouped(["trt"])
    {'rescale': {}, 'smoothing': {}}
    """
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        for tweak, options in GROUPS.get(name, {name: {}}).items():
            found[tweak] = options | found.get(tweak, {})
    return found
