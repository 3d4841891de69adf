"""A file of points that grows as they are computed, so that a killed computation goes on.

It is an SQLite database: each point is a transaction, so a kill at any moment loses at most the
point that is being written, and a lock keeps a second process away until the first one ends.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Self

from sparsediag.core.errors import CheckpointError

TABLES = {"about": "(name TEXT PRIMARY KEY, digest TEXT)"}
TABLES |= {"points": "(number INTEGER PRIMARY KEY, loss REAL, accuracy REAL)"}


class PointLog:
    """Loss and accuracy of the computed points, by their number in the grid.

    Args:
        path: The file, created if it does not exist; None to keep the points in memory only.
        about: Fingerprints of all that the values depend on, by name.

    Attributes:
        values: Number -> (loss, accuracy).

    Raises:
        CheckpointError: If the file holds other points or none, or another process writes it.

    >>> with PointLog(None, {}) as points:
    ...     points.add(3, 0.5, 1.0)
    ...     points.values
    {3: (0.5, 1.0)}
    """

    def __init__(self, path: Path | None, about: dict[str, str]) -> None:
        self.values: dict[int, tuple[float, float]] = {}
        self._database: sqlite3.Connection | None = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
            changed = self._read(self._database, about)
        except sqlite3.Error as error:
            self.close()
            messages = {
                sqlite3.SQLITE_BUSY: "another process is computing these points; wait for it, or "
                "give another output file",
                sqlite3.SQLITE_NOTADB: "the file holds no points of a grid, or those of an older "
                "version; remove it",
            }
            code = getattr(error, "sqlite_errorcode", -1)
            raise CheckpointError(f"{path}: {messages.get(code, str(error))}") from None
        if changed:
            self.close()
            raise CheckpointError(
                f"{path} holds unfinished work with other {', '.join(changed)}; "
                "remove it, or ask for the same again"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, so that another process may open it."""
        if self._database:
            self._database.close()

    def add(self, number: int, loss: float, accuracy: float) -> None:
        """Record a point."""
        self.values[number] = loss, accuracy
        if self._database:
            row = number, loss, accuracy
            self._database.execute("INSERT OR REPLACE INTO points VALUES (?, ?, ?)", row)

    def _read(self, database: sqlite3.Connection, about: dict[str, str]) -> list[str]:
        """Lock the file and read its points; return the names of fingerprints that differ."""
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA synchronous = OFF")  # the system writes after a kill, too
        database.execute("BEGIN EXCLUSIVE")
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        if not tables:
            for name, columns in TABLES.items():
                database.execute(f"CREATE TABLE {name} {columns}")
            database.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        stored = dict(database.execute("SELECT name, digest FROM about"))
        for number, *pair in database.execute("SELECT number, loss, accuracy FROM points"):
            loss, accuracy = (float("nan") if x is None else x for x in pair)  # SQL has no NaN
            self.values[number] = loss, accuracy
        database.execute("COMMIT")
        return [name for name in {**about, **stored} if stored.get(name) != about.get(name)]
