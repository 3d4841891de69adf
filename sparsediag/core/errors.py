"""Exceptions, and messages that say what came, what was needed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CheckpointError(ValueError):
    """A checkpoint or result file that cannot be read, or does not fit its use."""


class ConfigError(ValueError):
    """A run description with an unknown key or an invalid value."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return a message about an unknown name, with the closest known name and all of them.

    >>> unknown_name("norm", "filtr", ["filter", "layer"])
    "unknown norm 'filtr'; did you mean 'filter'? Known: filter, layer."
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return f"unknown {what} '{name}'{hint} Known: {', '.join(known)}."
