"""Tables of plain values from and to frozen dataclasses, strictly: an unknown key is an error."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, Literal

from sparsediag.core.errors import ConfigError, unknown_name


def changed(value: Any, default: Any = None) -> dict[str, Any]:
    """Return the fields that differ between two dataclasses, as a nested table.

    Args:
        value: A dataclass.
        default: Another one (default: the fields' own defaults).
    """
    defaults = {f.name: f.default for f in fields(value)} if default is None else asdict(default)
    return _changed(asdict(value), defaults)


def _changed(table: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    different = {}
    for key, value in table.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            if inner := _changed(value, default):
                different[key] = inner
        elif value != default:
            different[key] = value
    return different


def toml(table: Mapping[str, Any]) -> str:
    """The table as TOML; None is left out."""
    return "\n".join(_lines(table, "")) + "\n"


def _lines(table: Mapping[str, Any], name: str) -> list[str]:
    lines = [f"[{name}]"] if name else []
    inner = {k: v for k, v in table.items() if isinstance(v, Mapping)}
    lines += [
        f"{_key(k)} = {_text(v)}" for k, v in table.items() if k not in inner and v is not None
    ]
    for key, value in inner.items():
        lines += ["", *_lines(value, f"{name}.{_key(key)}" if name else _key(key))]
    return lines


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def fill(cls: type[Any], table: Any, where: str = "") -> Any:
    """A dataclass from a table, nested dataclasses included.

    Args:
        cls: A dataclass whose fields all have defaults.
        table: Field -> value; what is left out keeps its default.
        where: Prefix of the keys in error messages.

    Raises:
        ConfigError: If a key is unknown or a value has the wrong type.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where.rstrip('.')} = {table!r}: need a table of options")
    hints = _hints(typing.cast("Any", cls))
    known = [f.name for f in fields(cls)]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(unknown_name("key", where + key, [where + name for name in known]))
        if is_dataclass(hints[key]):
            values[key] = fill(typing.cast("type[Any]", hints[key]), value, f"{where}{key}.")
        else:
            values[key] = _value(hints[key], value, where + key)
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"{where}{error}") from None


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type that a field asks for, or a ConfigError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in args:
            raise ConfigError(unknown_name(where, str(value), [str(a) for a in args]))
        return value
    if origin is types.UnionType:
        return None if value is None else _value(args[0], value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(args[0], item, where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = origin or hint
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        need = {"tuple": "list", "dict": "table"}.get(expected.__name__, expected.__name__)
        raise ConfigError(f"{where} = {value!r}: need {need}")
    if expected is dict and not _plain(value):
        raise ConfigError(f"{where} = {value!r}: need numbers, words, lists and tables only")
    return value


def _plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_plain(v) for v in value.values())
    if isinstance(value, list | tuple):
        return all(_plain(v) for v in value)
    return isinstance(value, int | float | str)
