"""Masks and tweaks of the user: from files, and from installed packages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from sparsediag.diagnostics import plugins
from training.masks import METHODS, Method
from training.tweaks import GROUPS, TWEAKS, Tweak


def load_plugins(files: Iterable[str] = ()) -> None:
    """Import plug-ins, and add the masks, tweaks and diagnostics in them.

    A mask is a class that derives from `Method`, a tweak one that derives from `Tweak`; run files
    name `class FisherScore` as fisher_score.

    Args:
        files: Python files; those of earlier calls stay, and installed packages are always loaded.

    Raises:
        ValueError: If a file is missing or raises an error, or a name in it is taken.
    """
    for module in plugins.load_plugins():
        _add(module)
    for file in files:  # one after the other: one may use what another adds
        for module in plugins.load_plugins([file]):
            _add(module)


def _add(module: ModuleType) -> None:
    """Add the masks and tweaks of a plug-in."""
    tables: dict[type, tuple[str, dict[str, Any]]]
    tables = {Method: ("mask", METHODS), Tweak: ("tweak", TWEAKS)}
    for thing in plugins.definitions(module):
        for base, (kind, table) in tables.items():
            if isinstance(thing, type) and issubclass(thing, base):
                name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", thing.__name__).lower()
                taken = table.get(name, Tweak if kind == "tweak" and name in GROUPS else None)
                plugins.check_free(kind, name, thing, taken)
                table[name] = thing
