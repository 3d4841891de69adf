"""Tables of plain values from and to frozen dataclasses, strictly: an unknown key is an error."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal

from sparsediag.core.errors import ConfigError, unknown_name

NEEDED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list",
    dict: "a table",
}


def differences(table: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a nested table that differ from those of another."""
    result = {}
    for key, value in table.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            if inner := differences(value, default):
                result[key] = inner
        elif value != default:
            result[key] = value
    return result


def to_toml(table: Mapping[str, Any]) -> str:
    """Return a nested table as TOML; None is left out."""
    return "\n".join(_toml_lines(table, "")) + "\n"


def _toml_lines(table: Mapping[str, Any], name: str) -> list[str]:
    lines = [f"[{name}]"] if name else []
    inner = {k: v for k, v in table.items() if isinstance(v, Mapping)}
    lines += [
        f"{_toml_key(k)} = {_toml_value(v)}"
        for k, v in table.items()
        if k not in inner and v is not None
    ]
    for key, value in inner.items():
        lines += ["", *_toml_lines(value, f"{name}.{_toml_key(key)}" if name else _toml_key(key))]
    return lines


def _toml_value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml_value(name)


def from_table(
    cls: type[Any], table: Any, prefix: str = "", *, read_before: Sequence[str] = ()
) -> Any:
    """Return a dataclass filled from a table, nested dataclasses included.

    Args:
        cls: A dataclass whose fields all have defaults.
        table: Field -> value; missing fields keep their defaults.
        prefix: Prefix of the keys in error messages.
        read_before: Further keys to name there, which are no longer in the table.

    Raises:
        ConfigError: If a key is unknown or a value has the wrong type.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{prefix.rstrip('.')} = {table!r}: need a table of options")
    hints = _type_hints(typing.cast("Any", cls))
    names = [f.name for f in fields(cls)]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in names:
            keys = [prefix + name for name in (*names, *read_before)]
            raise ConfigError(unknown_name("key", prefix + key, keys))
        if is_dataclass(hints[key]):
            values[key] = from_table(typing.cast("type[Any]", hints[key]), value, f"{prefix}{key}.")
        else:
            values[key] = _checked(hints[key], value, prefix + key)
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"{prefix}{error}") from None


@cache
def _type_hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _checked(hint: Any, value: Any, key: str) -> Any:
    """Return a value as the type of its field, or raise a ConfigError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in args:
            raise ConfigError(unknown_name(key, str(value), [str(a) for a in args]))
        return value
    if origin is types.UnionType:
        return None if value is None else _checked(args[0], value, key)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_checked(args[0], item, key) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = origin or hint
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        need = NEEDED.get(expected, expected.__name__)
        percent = re.fullmatch(r"([\d.]+) ?%", str(value))
        if percent and expected is float:
            need += f", as in {float(percent[1]) / 100:g}"
        raise ConfigError(f"{key} = {value!r}: need {need}")
    if expected is dict:
        try:
            json.dumps(value)
        except TypeError:  # a date
            message = f"{key} = {value!r}: need numbers, words, lists and tables only"
            raise ConfigError(message) from None
    return value
