"""Files of `Watch`: rows of numbers of a training, one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsediag.core.errors import missing_file

NAMES = ("watch.jsonl", "history.jsonl")  # in the folder of a training, the first one that is there
DEPTHS = ("*/", "*/*/")  # of the folders of trainings in a folder that was given
NEED = "a file that sd.Watch writes with its first row, such as watch.jsonl"


@dataclass
class WatchFile:
    """Contents of a file.

    Attributes:
        path: The file.
        axis: "step"; or "epoch" in a file whose rows have no step, such as a history.jsonl.
        header: What was watched; empty if the file does not say it.
        rows: One dict of numbers a row, in order of the steps; None is a number that is not finite.
        notes: What the Watch told, such as why a metric failed, and what is missing here.
    """

    path: Path
    axis: str = "step"
    header: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, float | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_watch_file(path: str | Path) -> WatchFile:
    """Read a file that a training has written, or is writing at this moment.

    A line that is written by half is left out. Where a training resumed at an earlier step, the
    rows from there on replace those before.

    Args:
        path: The file, or a folder with one of `NAMES`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no file of a Watch.
    """
    path = Path(path)
    inside: list[Path] = []
    if path.is_dir():
        inside = [file for depth in DEPTHS for name in NAMES for file in path.glob(depth + name)]
        path = next((path / name for name in NAMES if (path / name).exists()), path / NAMES[0])
    if not path.exists():
        hint = f"; there is one in {min(inside).parent}" if inside else ""
        raise FileNotFoundError(missing_file(path, NEED) + hint)
    *whole, last = path.read_text(encoding="utf-8", errors="replace").split("\n")
    parsed = [_parse(line) for line in (*whole, last) if line.strip()]
    lines = [line for line in parsed if line is not None]
    if not any(_is_line(line) for line in lines):
        raise ValueError(f"{path} is no file of rows of a training; need {NEED}")
    file = WatchFile(path, axis="step" if any("step" in line for line in lines) else "epoch")
    replaced = ""
    for line in lines:
        if "watch" in line:
            file.header = line
        elif isinstance(line.get("note"), str):
            file.notes.append(f"step {line.get('step')}: {line['note']}")
        elif isinstance(at := line.get(file.axis), int | float):
            end = file.rows[-1][file.axis] if file.rows else None
            while file.rows and (file.rows[-1][file.axis] or 0) >= at:
                file.rows.pop()
                replaced = f"{file.axis} {at:g} came again after {end:g}: the later rows are shown"
            null = bool(file.header)  # other files leave a number open that they do not have
            file.rows.append(
                {k: v for k, v in line.items() if _is_number(v) or (v is None and null)}
            )
    unreadable = parsed.count(None) - (bool(last.strip()) and _parse(last) is None)
    if unreadable:
        file.notes.append(f"left out, since they are no JSON: {unreadable} of {len(parsed)} lines")
    file.notes = list(dict.fromkeys([*file.notes, *([replaced] if replaced else [])]))
    return file


def is_watch_file(path: str | Path) -> bool:
    """Return whether a path is a file of a Watch, by its first line."""
    if not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        return _is_line(_parse(file.readline(100_000).decode("utf-8", errors="replace")))


def advise_watch(path: str | Path) -> str:
    """Return the end of a message on a file that a command cannot use: the one that can.

    >>> advise_watch("weights.pt")
    ''
    """
    shown = is_watch_file(path)
    return f"; it holds rows of a training: sparsediag watch {path} shows them" if shown else ""


def _parse(line: str) -> dict[str, Any] | None:
    """Return the JSON object in a line; None if there is no other or it is cut short."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _is_line(line: dict[str, Any] | None) -> bool:
    keys = ("watch", "step", "epoch")
    return line is not None and any(isinstance(line.get(key), int) for key in keys)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
