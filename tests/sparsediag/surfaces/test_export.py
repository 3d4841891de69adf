"""Exported landscapes: what another program reads back is what was computed, in its place."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from surfaces import holding, surface

from sparsediag import Landscape
from sparsediag.surfaces.export import write_csv, write_vtk

NAN, INF = float("nan"), float("inf")


def _plane() -> Landscape:
    """10 a + b with every status, on axes that differ."""
    axes = np.array([[0.1, 0.2, 0.3], [-1.0, 0.0, 2.0]])
    loss = 10 * axes[0][:, None] + axes[1]
    loss[0, 2], loss[2, 0] = INF, NAN
    status = np.array([[1, 3, 2], [1, 1, 1], [0, 1, 1]], np.uint8)
    accuracy = np.where(status == 1, np.arange(9).reshape(3, 3) / 9, NAN)
    return holding(loss, axes, status=status, accuracy=accuracy)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def _vtk(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """The head of a rectilinear grid, and its numbers by name."""
    lines = path.read_text().splitlines()
    numbers: dict[str, np.ndarray] = {}
    for line, following in pairwise(lines[5:]):
        kind, *rest = line.split()
        if kind.endswith("_COORDINATES"):
            numbers[kind[0]] = np.array(following.split(), float)
            assert rest == [str(numbers[kind[0]].size), "double"]
        elif kind == "SCALARS":
            name, *how = rest
            assert (how, following) == (["double", "1"], "LOOKUP_TABLE default")
        elif kind == "LOOKUP_TABLE":
            numbers[name] = np.array(following.split(), float)
    return lines, numbers


def test_a_csv_holds_every_point_at_its_place(tmp_path: Path) -> None:
    found = _plane()
    assert write_csv(found, tmp_path / "plane.csv") == tmp_path / "plane.csv"
    rows = _rows(tmp_path / "plane.csv")
    assert list(rows[0]) == ["a", "b", "loss", "accuracy", "status"]
    a, b = np.meshgrid(*found.axes, indexing="ij")
    for name, values in (("a", a), ("b", b), ("loss", found.loss), ("accuracy", found.accuracy)):
        np.testing.assert_array_equal(_column(rows, name).reshape(3, 3), values)
    words = [row["status"] for row in rows]
    assert words[:4] == ["computed", "interpolated", "not finite", "computed"]
    assert words[4:] == ["computed", "computed", "missing", "computed", "computed"]


def test_a_csv_of_a_line(tmp_path: Path) -> None:
    found = surface(lambda a: np.exp(a) / 3, points=7, middle=(0.1,))
    rows = _rows(write_csv(found, tmp_path / "line.csv"))
    assert list(rows[0]) == ["a", "loss", "accuracy", "status"]
    assert _column(rows, "a").tolist() == found.axes[0].tolist()
    assert _column(rows, "loss").tolist() == found.loss.tolist()


def test_a_csv_of_lines_numbers_them(tmp_path: Path) -> None:
    found = holding(np.arange(8.0).reshape(2, 4), np.array([[-3.0, -1.0, 1.0, 3.0]]))
    rows = _rows(write_csv(found, tmp_path / "lines.csv"))
    assert _column(rows, "line").tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert _column(rows, "a").tolist() == [-3, -1, 1, 3] * 2
    assert _column(rows, "loss").tolist() == list(range(8))


def test_a_vtk_file_is_a_rectilinear_grid_whose_x_runs_fastest(tmp_path: Path) -> None:
    found = _plane()
    assert write_vtk(found, tmp_path / "plane.vtk") == tmp_path / "plane.vtk"
    lines, numbers = _vtk(tmp_path / "plane.vtk")
    assert lines[0] == "# vtk DataFile Version 3.0"
    assert lines[2:5] == ["ASCII", "DATASET RECTILINEAR_GRID", "DIMENSIONS 3 3 1"]
    assert "POINT_DATA 9" in lines
    assert [numbers[name].tolist() for name in "XYZ"] == [*found.axes.tolist(), [0]]
    for name in ("loss", "accuracy", "status"):
        for k, value in enumerate(numbers[name]):
            np.testing.assert_array_equal(value, getattr(found, name)[k % 3, k // 3])


@pytest.mark.parametrize(
    "found", [surface(lambda a: a, middle=(0,)), holding(np.ones((4, 5)), np.arange(5.0)[None])]
)
def test_a_vtk_file_holds_no_lines(found: Landscape, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a VTK file holds a plane; need dims=2"):
        write_vtk(found, tmp_path / "line.vtk")
    assert list(tmp_path.iterdir()) == []
