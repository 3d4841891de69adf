"""Sweep: a run file with lists of values, and the runs that it describes."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from sparsediag.core.errors import ConfigError
from training.compute import Compute
from training.config import Model, Record, Run, read_table
from training.masks import METHODS
from training.optim import Optim
from training.tweaks import TWEAKS

Table = dict[str, Any]


def load_runs(path: str | Path, changes: Mapping[str, Any] | None = None) -> list[Run]:
    """Return the runs of a file: one, or one for each combination of the values in its lists.

    A list where a key takes one value holds the values of several runs, as in `seed = [0, 1, 2]`.
    For the keys whose value is a list itself, such as `tweaks`, that is a list of lists. The first
    key of the file changes slowest. `[[mask]]` tables are masks with their own keys; in a list of
    methods, "dense" takes none of the other keys of `[mask]`.

    Args:
        path: The file, or the name of a recipe.
        changes: As of `Run.load`; their values may be lists too.

    Raises:
        FileNotFoundError: If there is neither a file nor a recipe.
        ConfigError: If it is not TOML, a list is empty or cannot be understood, or a combination
            of values is invalid.

    >>> tweaks = [[], ["smoothing"]]
    >>> [run.seed for run in load_runs("digits", {"seed": [0, 1], "tweaks": tweaks})]
    [0, 1, 0, 1]
    """
    runs = []
    for table, chosen in combinations(read_table(path, changes)):
        if chosen.get("mask.method") == "dense":
            table = table | {"mask": {"method": "dense"}}
        try:
            runs.append(Run.of(table))
        except ConfigError as error:
            values = ", ".join(f"{key} = {value!r}" for key, value in chosen.items())
            raise ConfigError(f"{values}: {error}" if chosen else str(error)) from None
    return list(dict.fromkeys(runs))


def combinations(table: Table, chosen: Table | None = None) -> Iterator[tuple[Table, Table]]:
    """Yield each combination of the listed values: as a table, and as values by dotted keys.

    >>> [chosen for _, chosen in combinations({"mask": {"density": [0.1, 0.2]}})]
    [{'mask.density': 0.1}, {'mask.density': 0.2}]
    """
    chosen = chosen or {}
    key, values = next(_lists_of_values(table), ("", []))
    if not key:
        yield table, chosen
    for value in values:
        yield from combinations(_with_value(table, key.split("."), value), chosen | {key: value})


def _lists_of_values(table: Table, prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Yield the dotted keys that have a list in place of one value, and the list."""
    for key, value in table.items():
        name = prefix + key
        if isinstance(value, Mapping) and name != "model.options":
            yield from _lists_of_values(dict(value), f"{name}.")
        elif isinstance(value, list) and _is_list_of_values(name, value):
            yield name, value


def _is_list_of_values(key: str, value: list[Any]) -> bool:
    """Return whether a list holds the values of several runs; False if it is one value."""
    nested = [isinstance(item, list | Mapping) for item in value]
    if key in _keys_with_lists():
        if any(nested) and not all(nested):
            raise ConfigError(
                f"{key} = {value!r}: need a list for one run, or a list of lists for several; it "
                "mixes them"
            )
        return any(nested)
    if not value:
        raise ConfigError(f"{key} = []: need one value or more")
    return True


def _keys_with_lists() -> set[str]:
    """Return the dotted keys whose value is a list by itself."""
    tables = [("", Run), ("model.", Model), ("optim.", Optim), ("record.", Record)]
    tables += [("compute.", Compute), *(("mask.", method) for method in METHODS.values())]
    tables += [(f"tweaks.{name}.", tweak) for name, tweak in TWEAKS.items()]
    return {"tweaks"} | {
        prefix + field.name
        for prefix, table in tables
        for field in fields(table)
        if typing.get_origin(typing.get_type_hints(table)[field.name]) is tuple
    }


def _with_value(table: Table, path: list[str], value: Any) -> Table:
    """Return the nested table with another value at a path of keys; in the same order."""
    first, *rest = path
    return table | {first: _with_value(dict(table[first]), rest, value) if rest else value}
