"""First names of keys and values of run files.

Files, command lines and checkpoints with them are still read, and run ids are hashed with them and
with the first defaults, so that a finished run keeps its folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsediag.core.errors import ConfigError

KEYS = {
    "normalize": "normalise",
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
    ("collapse", "refuse"): "error",
    ("collapse", "train"): "warn",
    ("init", "zero"): "zero_hadamard",
}
FIRST_DEFAULTS: dict[str, dict[str, Any]] = {  # of tweaks, where today's are others
    "ghost_skips": {"kind": "identity_bn", "schedule": "linear"},
    "rescale": {"ghosts": True},
}
FIRST_KEYS = {new: old for old, new in KEYS.items()}
FIRST_VALUES = {(KEYS.get(key, key), new): old for (key, old), new in VALUES.items()}


def renamed(
    table: Mapping[str, Any],
    keys: Mapping[str, str] = KEYS,
    values: Mapping[tuple[str, Any], str] = VALUES,
    prefix: str = "",
) -> dict[str, Any]:
    """Return a nested table of a run, or changes by dotted keys, with other keys and values.

    Args:
        table: The table.
        keys: Dotted key -> dotted key; old -> new by default.
        values: (Dotted key, value) -> value, likewise.
        prefix: Where the table is in the run, such as "optim.".

    Raises:
        ConfigError: If it has both an old key and its new one.

    >>> renamed({"init": "zero", "optim": {"batch": 64}, "mask.cut": 0.5})
    {'init': 'zero_hadamard', 'optim': {'batch_size': 64}, 'mask.prune_rate': 0.5}
    """
    result = {}
    for key, value in table.items():
        dotted = prefix + key
        new = keys.get(dotted, dotted).removeprefix(prefix)
        if new != key and new in table:
            raise ConfigError(f"{dotted} is another name of {keys[dotted]}; give one of the two")
        if isinstance(value, Mapping):
            value = renamed(value, keys, values, f"{dotted}.")
        elif isinstance(value, str):
            value = values.get((dotted, value), value)
        result[new] = value
    return result
