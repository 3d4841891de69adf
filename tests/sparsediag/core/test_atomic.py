"""A file is whole or not there at all, and nothing is left beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparsediag.core.atomic import atomic_write

KILLED = """
import os, signal, sys
from sparsediag.core.atomic import atomic_write
with atomic_write(sys.argv[1]) as draft:
    draft.write_text("half of")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_the_draft_takes_its_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with atomic_write(path) as draft:
        draft.write_text("new")
        assert draft.parent == path.parent  # the same file system, so the change is one step
        assert draft.suffix == ".txt"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    with atomic_write(path) as draft:
        draft.write_text("new")
    assert path.read_text() == "new"


def test_a_plain_string_is_a_path_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with atomic_write("c.txt") as draft:
        draft.write_text("new")
    assert (tmp_path / "c.txt").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("old", ["old", None])
def test_an_error_inside_leaves_what_was_there(
    tmp_path: Path, old: str | None, error: type[BaseException]
) -> None:
    path = tmp_path / "kept.txt"
    if old:
        path.write_text(old)
    with pytest.raises(error), atomic_write(path) as draft:
        draft.write_text("half of")
        raise error
    assert [p.read_text() for p in tmp_path.iterdir()] == ([old] if old else [])


def test_a_killed_writer_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002], indirect=True, ids=oct)
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "kept.txt"
    with atomic_write(path) as draft:
        draft.write_text("new")
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert os.umask(umask) == umask
