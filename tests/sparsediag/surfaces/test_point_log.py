"""Points: what was written comes back, whatever happened to the end of the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sparsediag import CheckpointError
from sparsediag.surfaces.point_log import RECORD, PointLog

ABOUT = {"net": "a1", "grid": "b2"}
LINE = json.dumps(ABOUT).encode() + b"\n"
THREE = {4: (0.5, 1.0), 0: (2.25, 0.125), 7: (1 / 3, 0.0)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.points"


def _write(path: Path, values: dict[int, tuple[float, float]] = THREE) -> bytes:
    with PointLog(path, ABOUT) as points:
        for index, pair in values.items():
            points.add(index, *pair)
    return path.read_bytes()


def _read(path: Path) -> dict[int, tuple[float, float]]:
    with PointLog(path, ABOUT) as points:
        return points.values


def _same(came: dict[int, tuple[float, float]], expected: dict[int, tuple[float, float]]) -> bool:
    return list(came) == list(expected) and np.array_equal(
        np.array([*came.values()]), np.array([*expected.values()]), equal_nan=True
    )


# what comes back


def test_values_come_back(path: Path) -> None:
    whole = _write(path)
    assert len(whole) == len(LINE) + 3 * RECORD.itemsize
    assert _read(path) == THREE
    assert path.read_bytes() == whole


def test_work_goes_on_in_the_same_file(path: Path, tmp_path: Path) -> None:
    _write(path, {4: THREE[4]})
    assert _write(path, {k: THREE[k] for k in (0, 7)}) == _write(tmp_path / "at once")
    assert _read(path) == THREE


def test_no_point_yet(path: Path) -> None:
    assert _write(path, {}) == LINE
    assert _read(path) == {}


def test_every_point_is_in_the_file_at_once(path: Path) -> None:
    with PointLog(path, ABOUT) as points:
        for count, (index, pair) in enumerate(THREE.items(), 1):
            points.add(index, *pair)
            assert path.stat().st_size == len(LINE) + count * RECORD.itemsize


def test_values_that_are_not_finite_are_kept(path: Path) -> None:
    odd = {1: (np.inf, 0.5), 2: (-np.inf, np.nan), 3: (np.nan, np.nan), 2**32 - 1: (5e-324, -0.0)}
    _write(path, odd)
    assert _same(_read(path), odd)


def test_a_point_again_replaces_the_first(path: Path) -> None:
    with PointLog(path, ABOUT) as points:
        points.add(3, 1.0, 0.0)
        points.add(3, 2.0, 0.0)
    assert _read(path) == {3: (2.0, 0.0)}


def test_without_a_file_they_are_kept_in_memory() -> None:
    with PointLog(None, ABOUT) as points:
        points.add(1, 0.5, 0.25)
        assert points.values == {1: (0.5, 0.25)}


def test_folders_are_made(tmp_path: Path) -> None:
    assert _write(tmp_path / "a" / "b" / "x.points").startswith(LINE)


# torn and broken files


def test_a_torn_last_record_is_dropped(path: Path) -> None:
    whole = _write(path)
    two = {k: THREE[k] for k in (4, 0)}
    for cut in range(1, RECORD.itemsize + 1):
        path.write_bytes(whole[:-cut])
        assert _read(path) == two
        assert path.read_bytes() == whole[: -RECORD.itemsize]
        assert _write(path, {7: THREE[7]}) == whole


@pytest.mark.parametrize("record", [0, 1, 2])
def test_a_broken_record_is_dropped_with_what_follows(path: Path, record: int) -> None:
    whole = _write(path)
    start = len(LINE) + record * RECORD.itemsize
    for byte in range(RECORD.itemsize):
        broken = bytearray(whole)
        broken[start + byte] ^= 16
        path.write_bytes(broken)
        assert list(_read(path)) == list(THREE)[:record]
        assert path.read_bytes() == whole[:start]


def test_a_record_of_zeros_is_broken(path: Path) -> None:
    whole = _write(path)
    path.write_bytes(whole + bytes(RECORD.itemsize))
    assert _read(path) == THREE
    assert path.read_bytes() == whole


def test_a_first_line_cut_short_starts_anew(path: Path) -> None:
    for length in range(len(LINE)):
        path.write_bytes(LINE[:length])
        assert _read(path) == {}
        assert path.read_bytes() == LINE


# what is refused


@pytest.mark.parametrize(
    ("about", "changed"),
    [
        ({"net": "a2", "grid": "b2"}, "net"),
        ({"net": "a1", "grid": "b3"}, "grid"),
        ({"net": "a2", "grid": "b3"}, "net, grid"),
        ({"net": "a1"}, "grid"),
        ({**ABOUT, "loss": "c3"}, "loss"),
    ],
)
def test_points_of_something_else_are_refused(
    path: Path, about: dict[str, str], changed: str
) -> None:
    whole = _write(path)
    with pytest.raises(CheckpointError, match=f"unfinished work with other {changed}; remove it"):
        PointLog(path, about)
    assert path.read_bytes() == whole
    assert _read(path) == THREE


def test_a_second_opener_is_refused(path: Path) -> None:
    with PointLog(path, ABOUT) as points:
        points.add(1, 0.5, 0.5)
        with pytest.raises(CheckpointError, match="another process is computing these points"):
            PointLog(path, ABOUT)
        points.add(2, 0.5, 0.5)
    assert list(_read(path)) == [1, 2]


def test_a_failure_frees_the_file(path: Path) -> None:
    with pytest.raises(KeyError), PointLog(path, ABOUT) as points:
        points.add(1, 0.5, 0.5)
        raise KeyError("no luck")
    assert list(_read(path)) == [1]


@pytest.mark.parametrize(
    "content",
    [
        b"my notes",
        b"my notes\nand more\n",
        b"[1, 2]\n",
        b"3\n",
        b"null\n",
        b"\x89PNG\r\n\x1a\n\x00\x00",
        b"\xff\xfe\x00",
        b"PK\x03\x04",
        bytes(100),
        b"\n",
        b"{\n  'a': 1\n}",
    ],
)
def test_a_foreign_file_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="holds no points of a grid; remove it") as error:
        PointLog(path, ABOUT)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^[^\n]*directory[^\n]*$"):
        PointLog(tmp_path, ABOUT)
