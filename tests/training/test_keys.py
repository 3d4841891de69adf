"""Every key of a run file is explained, with its default."""

from __future__ import annotations

import tomllib
from dataclasses import fields

from training.config import Model, Record, Run
from training.keys import groups_of_keys
from training.masks import METHODS
from training.optim import Optim
from training.tweaks import TWEAKS

KEYS = [key for group in groups_of_keys().values() for key in group]


def test_there_is_every_key() -> None:
    names = {key.name for key in KEYS}
    tables = {"model": Model, "optim": Optim, "record": Record, "compute": type(Run().compute)}
    tables |= {f"tweaks.{name}": tweak for name, tweak in TWEAKS.items()}
    expected = {f"{name}.{f.name}" for name, table in tables.items() for f in fields(table)}
    expected |= {f"mask.{f.name}" for method in METHODS.values() for f in fields(method)}
    expected |= {f.name for f in fields(Run)} - {*tables, "mask"} | {"mask.method"}
    assert names == expected


def test_each_says_all_by_itself() -> None:
    for key in KEYS:
        assert len(key.meaning) > 10
        assert not key.meaning.startswith("See "), key.name


def test_the_defaults_are_those_of_a_run() -> None:
    lines = [f"{key.name} = {key.default}" for key in KEYS if key.default]
    own = [line for line in lines if not line.startswith(("mask.", "tweaks."))]
    assert Run.of(tomllib.loads("\n".join(own))) == Run()
