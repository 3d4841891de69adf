"""Export a landscape to CSV and VTK."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Protocol

import numpy as np

from sparsediag.core.atomic import atomic_write

STATUS = ("missing", "computed", "not finite", "interpolated")


class Values(Protocol):
    """The arrays of a `Landscape` that are exported."""

    @property
    def axes(self) -> np.ndarray: ...
    @property
    def loss(self) -> np.ndarray: ...
    @property
    def accuracy(self) -> np.ndarray: ...
    @property
    def status(self) -> np.ndarray: ...
    @property
    def lines(self) -> bool: ...


def write_csv(landscape: Values, path: Path) -> Path:
    """Write a row for each point: its coordinates, loss, accuracy and status."""
    names = ["line", "a"] if landscape.lines else ["a", "b"][: len(landscape.axes)]
    axes = [np.arange(len(landscape.loss)), *landscape.axes] if landscape.lines else landscape.axes
    with atomic_write(path) as draft, draft.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*names, "loss", "accuracy", "status"])
        for index in np.ndindex(landscape.loss.shape):
            point = [float(axis[i]) for axis, i in zip(axes, index, strict=True)]
            values = [float(landscape.loss[index]), float(landscape.accuracy[index])]
            rows.writerow([*point, *values, STATUS[landscape.status[index]]])
    return path


def write_vtk(landscape: Values, path: Path) -> Path:
    """Write a plane as a rectilinear grid with the fields loss, accuracy and status (ParaView).

    Raises:
        ValueError: If it is not a plane.
    """
    if landscape.loss.ndim != 2 or landscape.lines:
        raise ValueError("a VTK file holds a plane; need dims=2")
    x, y = landscape.axes
    lines = ["# vtk DataFile Version 3.0", "loss landscape", "ASCII", "DATASET RECTILINEAR_GRID"]
    lines.append(f"DIMENSIONS {len(x)} {len(y)} 1")
    for name, axis in zip("XYZ", (x, y, np.zeros(1)), strict=True):
        lines += [f"{name}_COORDINATES {len(axis)} double", " ".join(map(repr, axis.tolist()))]
    lines.append(f"POINT_DATA {landscape.loss.size}")
    for name in ("loss", "accuracy", "status"):
        values = getattr(landscape, name).T.ravel()  # x runs fastest
        lines += [f"SCALARS {name} double 1", "LOOKUP_TABLE default"]
        lines.append(" ".join(repr(float(v)) for v in values))
    with atomic_write(path) as draft:
        draft.write_text("\n".join(lines) + "\n")
    return path
