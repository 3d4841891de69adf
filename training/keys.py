"""Keys of run files and columns of the history: names, defaults and meanings.

The meanings are those in the docstrings of the dataclasses. `python -m training --help` prints
them, and `python -m training.keys > docs/run-files.md` writes them.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from docstring_parser import parse

from training.compute import Compute
from training.config import Model, Record, Run
from training.listing import format_list
from training.masks import METHODS, Method
from training.metrics import COSTS, HISTORY
from training.optim import Optim
from training.tweaks import GROUPS, TWEAKS

TABLES = {"model": Model, "mask": Method, "optim": Optim, "record": Record, "compute": Compute}


@dataclass(frozen=True)
class Key:
    """A key of a run file.

    Attributes:
        name: The dotted name, as on the command line.
        default: The default as TOML; "" without one.
        meaning: The meaning, with the possible values.
    """

    name: str
    default: str
    meaning: str


def groups_of_keys() -> dict[str, list[Key]]:
    """Return all keys of a run file, by the heading of each group.

    >>> groups_of_keys()["[optim]"][1]
    Key(name='optim.lr', default='0.1', meaning='Learning rate at the start.')
    """
    run = [key for key in _keys(Run) if key.name not in TABLES]
    groups = {"Top level": run, **{f"[{name}]": _keys(TABLES[name], f"{name}.") for name in TABLES}}
    method = Key("mask.method", '"dense"', f"Pruning method. One of {', '.join(METHODS)}.")
    groups["[mask]"] = [method, *groups["[mask]"], *_keys_of_methods()]
    for name, tweak in TWEAKS.items():
        groups[f"[tweaks.{name}]"] = _keys(tweak, f"tweaks.{name}.")
    return groups


def help_text() -> str:
    """Return the lists of keys and of columns for a terminal of 79 columns."""
    lists: dict[str, Mapping[str, str]] = {
        f"Keys of a run file, {title.lower()}": {
            f"{key.name} = {key.default}" if key.default else key.name: key.meaning for key in keys
        }
        for title, keys in groups_of_keys().items()
    }
    lists |= {"Columns of history.jsonl": HISTORY, "Columns of costs.jsonl": COSTS}
    return "\n\n".join(format_list(title, rows) for title, rows in lists.items())


def markdown() -> str:
    """Return the page on run files, docs/run-files.md."""
    lines = [INTRODUCTION]
    for title, keys in groups_of_keys().items():
        rows = [(f"`{k.name}`", f"`{k.default}`" if k.default else "", k.meaning) for k in keys]
        lines += [f"## {title}", "", *_table(("key", "default", "meaning"), rows), ""]
    groups = [(f"`{name}`", ", ".join(f"`{t}`" for t in tweaks)) for name, tweaks in GROUPS.items()]
    lines += ["## Groups of tweaks", "", *_table(("group", "tweaks"), groups), ""]
    for file, columns in {"history": HISTORY, "costs": COSTS}.items():
        cells = [(f"`{name}`", meaning) for name, meaning in columns.items()]
        lines += [f"## Columns of {file}.jsonl", "", *_table(("column", "meaning"), cells), ""]
    return "\n".join(lines).rstrip()


INTRODUCTION = """# Run files

All keys of a training's TOML file, with their defaults; `python -m training --help` prints them
too. On the command line, a key is an option: `python -m training run.toml --mask.density 0.1`. Only
keys that differ from their defaults are part of a run's id. A list of values in place of one makes
[several trainings](training.md#many-trainings). At the end of this page are the columns of the
files that a training writes.
"""


def _keys(table: Any, prefix: str = "") -> list[Key]:
    """Return the keys of a dataclass."""
    documented: dict[str, str] = {}
    for kind in reversed(table.__mro__):  # a field of a base class is explained there
        text = parse(vars(kind).get("__doc__") or "")
        documented |= {p.arg_name: " ".join((p.description or "").split()) for p in text.params}
    hints = typing.get_type_hints(table)
    return [
        Key(prefix + f.name, _default(f), _with_choices(documented[f.name], hints[f.name]))
        for f in fields(table)
    ]


def _keys_of_methods() -> list[Key]:
    """Return the keys of pruning methods; with the methods in front of their meaning."""
    methods: dict[Key, list[str]] = {}
    for name, method in METHODS.items():
        for key in _keys(method, "mask."):
            if key.name != "mask.density":
                methods.setdefault(key, []).append(name)
    return [
        Key(key.name, key.default, f"{', '.join(names)}: {key.meaning}")
        for key, names in methods.items()
    ]


def _default(field: Any) -> str:
    if field.default is MISSING or field.default in (None, ""):
        return ""
    return json.dumps(field.default)


def _with_choices(meaning: str, hint: Any) -> str:
    """Return a meaning with the possible values, unless it names them already."""
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
    if all(f'"{choice}"' in meaning for choice in choices):
        return meaning
    return f"{meaning} One of {', '.join(choices)}."


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    cells = [head, ("---",) * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]


if __name__ == "__main__":
    print(markdown())
