"""What the tests of the commands share: their files, and what every refusal has in common."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from figures.__main__ import main as draw
from sparsediag.cli.app import main
from training.__main__ import main as train

SMALL = {"width": 16, "size": 8, "channels": 1, "classes": 10}  # the net of small.pt
Captured = pytest.CaptureFixture[str]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(place: Path, capsys: Captured, words: list[str], message: str) -> None:
    """Check that a command ends with exit code 2 and one line with `message`, and writes nothing.

    Words that begin with "training" or "figures" are for `python -m`.
    """
    before, home = contents(place), os.listdir(place)
    module = {"training": train, "figures": draw}.get(words[0])
    try:
        code: object = module(words[1:]) if module else main(words)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    assert contents(place) == before
    assert os.listdir(place) == home
