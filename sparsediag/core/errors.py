"""Exceptions, and messages that say what came, what was needed and what to do."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn


class ArgumentParser(argparse.ArgumentParser):
    """A parser of a command line whose errors are one line and exit code 2, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit."""
        self.exit(2, f"{message}; --help lists what there is\n")


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
    return f"unknown {what} '{name}'{_suggest(name, known)} Known: {', '.join(known)}."


def unknown_path(what: str, name: str, known: Iterable[str]) -> str:
    """Return a message about an unknown dotted name, with the known ones level by level.

    Numbers in a name become *, so that the layers of one kind are listed once.

    >>> unknown_path("module", "nosuch*", ["stem", "blocks", "blocks.0", "blocks.0.fc", "blocks.1"])
    "unknown module 'nosuch*'. Known, by level: blocks, stem; blocks.*; blocks.*.fc."
    """
    levels: dict[int, set[str]] = {}
    known = list(known)
    for path in known:
        levels.setdefault(path.count("."), set()).add(re.sub(r"(?<=\.)\d+(?![^.])", "*", path))
    listed = "; ".join(", ".join(sorted(levels[depth])) for depth in sorted(levels))
    return f"unknown {what} '{name}'{_suggest(name, known)} Known, by level: {listed}."


def _suggest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else "."


def missing_file(path: Path, need: str) -> str:
    """Return a message about a file that does not exist, with one beside it of a similar name.

    >>> missing_file(Path("nowhere/best.pt"), "a checkpoint")
    'nowhere/best.pt: no such file; need a checkpoint'
    """
    folder = path.parent
    others = os.listdir(folder) if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, others, n=1, cutoff=0.78)
    hint = f"; did you mean '{folder / near[0]}'?" if near else ""
    return f"{path}: no such file; need {need}{hint}"
