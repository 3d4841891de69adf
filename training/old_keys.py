"""First names of keys and values of run files.

Files, command lines and checkpoints with them are still read, and run ids are hashed with them and
with the first defaults, so that a finished run keeps its folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsediag.core.errors import ConfigError

KEYS = {
    "ticket": "mask_seed",
    "continues": "resume_schedule",
    "collapse": "on_disconnected",
    "optim.drops": "optim.lr_milestones",
    "optim.factor": "optim.lr_gamma",
    "optim.batch": "optim.batch_size",
    "record.checkpoints": "record.checkpoint_epochs",
    "record.images": "record.probe_samples",
    "mask.cut": "mask.prune_rate",
    "mask.every": "mask.update_interval",
    "mask.fraction": "mask.drop_fraction",
    "mask.until": "mask.end",
    "mask.spread": "mask.lambda_binary",
    "mask.size": "mask.lambda_l1",
    "tweaks.smoothing.fade": "tweaks.smoothing.decay_until",
    "tweaks.rescale.least": "tweaks.rescale.min_scale",
    "tweaks.distillation.share": "tweaks.distillation.alpha",
}
VALUES = {
    ("on_disconnected", "refuse"): "error",
    ("on_disconnected", "train"): "warn",
    ("init", "zero"): "zero_hadamard",
}
FIRST_DEFAULTS: dict[str, dict[str, Any]] = {  # of tweaks, where they are others today
    "ghost_skips": {"kind": "identity_bn", "schedule": "linear"},
    "rescale": {"ghosts": True},
}
FIRST_KEYS = {new: old for old, new in KEYS.items()}
FIRST_VALUES = {(key, new): old for (key, old), new in VALUES.items()}


def renamed(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a table of a run, or of changes by dotted keys, with the new keys and values.

    Raises:
        ConfigError: If it has both an old key and its new one.

    >>> renamed({"init": "zero", "optim": {"batch": 64}, "mask.cut": 0.5})
    {'init': 'zero_hadamard', 'optim': {'batch_size': 64}, 'mask.prune_rate': 0.5}
    """
    result = {}
    for key, value in table.items():
        name = KEYS.get(prefix + key, prefix + key)
        new = name.removeprefix(prefix)
        if new != key and new in table:
            raise ConfigError(f"{prefix}{key} is the old name of {name}; give one of the two")
        if isinstance(value, Mapping):
            value = renamed(value, f"{name}.")
        elif isinstance(value, str):
            value = VALUES.get((name, value), value)
        result[new] = value
    return result


def with_first_names(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a table of a run with the first keys and values: the inverse of `renamed`."""
    result = {}
    for key, value in table.items():
        name = prefix + key
        if isinstance(value, Mapping):
            value = with_first_names(value, f"{name}.")
        elif isinstance(value, str):
            value = FIRST_VALUES.get((name, value), value)
        result[FIRST_KEYS.get(name, name).removeprefix(prefix)] = value
    return result
