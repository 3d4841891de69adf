"""First names of keys and values mean the same as today's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparsediag.core.errors import ConfigError
from training.config import Run
from training.old_keys import KEYS, VALUES

# values that are not the default; 0.5 for other keys
CHANGED: dict[str, Any] = {
    "ticket": 3,
    "continues": True,
    "collapse": "train",
    "optim.drops": [0.25],
    "optim.batch": 64,
    "record.checkpoints": [2],
    "record.images": 64,
    "mask.every": 7,
    "normalize": "none",
}


def _base(old: str) -> dict[str, Any]:
    """Keys without which the key would be an error."""
    methods = {"cut": "lottery", "spread": "learned", "size": "learned"}
    room, _, key = old.rpartition(".")
    method = {"mask.method": methods.get(key, "rigl")} if room == "mask" else {}
    return {"data": "digits", "rewind": 0.5, "mask.density": 0.5, "mask.method": "random", **method}


@pytest.mark.parametrize("old", KEYS)
def test_an_old_key_means_its_new_one(old: str, tmp_path: Path) -> None:
    base, value, path = _base(old), CHANGED.get(old, 0.5), tmp_path / "run.toml"

    def run(file: dict[str, Any], line: dict[str, Any]) -> Run:
        path.write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in (base | file).items()))
        return Run.load(path, line)

    new, today = KEYS[old], VALUES.get((old, str(value)), value)
    expected = run({new: today}, {})
    assert expected.id != run({}, {}).id
    assert run({old: value}, {}) == run({}, {old: value}) == expected
    # the command line replaces what the file says, by either name
    other = "own" if old == "normalize" else 0
    assert run({new: other}, {old: value}) == run({old: other}, {new: today}) == expected
    with pytest.raises(ConfigError, match=rf"{old} .* {new}"):
        run({old: value, new: value}, {})
    with pytest.raises(ConfigError, match=rf"{old} .* {new}"):
        run({}, {old: value, new: value})


@pytest.mark.parametrize(("key", "old"), VALUES)
def test_an_old_value_means_its_new_one(key: str, old: str) -> None:
    assert getattr(Run.of({key: old}), KEYS.get(key, key)) == VALUES[key, old]
