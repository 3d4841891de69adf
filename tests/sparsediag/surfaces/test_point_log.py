"""Point log: values that were written come back, and files of others are refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from sparsediag import CheckpointError
from sparsediag.surfaces.point_log import PointLog

ABOUT = {"net": "a1", "grid": "b2"}
THREE = {4: (0.5, 1.0), 0: (2.25, 0.125), 7: (1 / 3, 0.0)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "x.points"


def _write(path: Path, values: dict[int, tuple[float, float]] = THREE) -> bytes:
    with PointLog(path, ABOUT) as log:
        for number, pair in values.items():
            log.add(number, *pair)
    return path.read_bytes()


def _read(path: Path) -> dict[int, tuple[float, float]]:
    with PointLog(path, ABOUT) as log:
        return log.values


def test_values_come_back_and_the_same_file_goes_on(path: Path) -> None:
    _write(path, {})
    assert _read(path) == {}
    _write(path, {4: THREE[4]})
    written = _write(path, {k: THREE[k] for k in (0, 7)})
    assert _read(path) == THREE
    assert path.read_bytes() == written
    assert [p.name for p in path.parent.iterdir()] == ["x.points"]


def test_every_point_is_in_the_file_at_once(path: Path) -> None:
    with PointLog(path, ABOUT) as log:
        for count, (number, pair) in enumerate(THREE.items(), 1):
            log.add(number, *pair)
            copy = path.with_name(f"{count}")
            copy.write_bytes(path.read_bytes())  # what a kill leaves
            assert len(_read(copy)) == count


def test_values_that_are_not_finite_are_kept(path: Path) -> None:
    odd = {1: (np.inf, 0.5), 2: (-np.inf, np.nan), 3: (np.nan, np.nan), 2**32 - 1: (5e-324, 0.0)}
    _write(path, odd)
    values = _read(path)
    assert np.array([*values.values()]).tobytes() == np.array([*odd.values()]).tobytes()
    assert list(values) == list(odd)


@pytest.mark.parametrize("named", [True, False])
def test_a_point_again_replaces_the_first(path: Path, named: bool) -> None:
    with PointLog(path if named else None, ABOUT) as log:
        log.add(3, 1.0, 0.0)
        log.add(3, 2.0, 0.0)
        assert log.values == {3: (2.0, 0.0)}
    assert not named or _read(path) == {3: (2.0, 0.0)}


@pytest.mark.parametrize(
    ("about", "changed"),
    [
        ({"net": "a2", "grid": "b2"}, "net"),
        ({"net": "a2", "grid": "b3"}, "net, grid"),
        ({"net": "a1"}, "grid"),
        ({**ABOUT, "loss": "c3"}, "loss"),
    ],
)
def test_points_of_something_else_are_refused(
    path: Path, about: dict[str, str], changed: str
) -> None:
    before = _write(path)
    with pytest.raises(CheckpointError, match=f"with other {changed}; remove it"):
        PointLog(path, about)
    assert path.read_bytes() == before
    assert _read(path) == THREE


def test_a_second_opener_is_refused_until_the_first_ends(path: Path) -> None:
    with pytest.raises(KeyError), PointLog(path, ABOUT) as log:
        log.add(1, 0.5, 0.5)
        with pytest.raises(CheckpointError, match="another process"):
            PointLog(path, ABOUT)
        log.add(2, 0.5, 0.5)
        raise KeyError
    assert list(_read(path)) == [1, 2]


@pytest.mark.parametrize(
    "content",
    [
        b"my notes",
        b'{"net": "a1", "grid": "b2"}\n' + bytes(24),  # as the first version wrote them
        b"\x89PNG\r\n\x1a\n\x00\x00",
        b"PK\x03\x04",
        bytes(100),
        bytes(9000),
    ],
)
def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.points"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.points.*no points of a grid.*remove") as error:
        PointLog(path, ABOUT)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_other_databases_and_folders_are_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other") as database:
        database.execute("CREATE TABLE notes (text)")
    database.close()
    for path in (tmp_path / "other", tmp_path):
        with pytest.raises(CheckpointError, match=str(path)):
            PointLog(path, ABOUT)
