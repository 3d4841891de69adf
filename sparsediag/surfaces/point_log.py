"""A log of grid values that is written as they come, and resumed.

The first line says in JSON what they are values of; a record of fixed size follows for every point,
so that a kill at any moment loses at most the one that was being written.
"""

from __future__ import annotations

import fcntl
import json
import zlib
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from sparsediag.core.errors import CheckpointError

RECORD = np.dtype([("index", "<u4"), ("loss", "<f8"), ("accuracy", "<f8"), ("check", "<u4")])


class PointLog:
    """Loss and accuracy of the points that are done, by their number in the grid.

    Args:
        path: The file, begun where it is missing; None to keep them in memory alone.
        about: Fingerprints of all that the values depend on, by name.

    Attributes:
        values: Number -> (loss, accuracy).

    Raises:
        CheckpointError: If the file holds points of something else, or another process writes it.

    >>> with PointLog(None, {}) as points:
    ...     points.add(3, 0.5, 1.0)
    ...     points.values
    {3: (0.5, 1.0)}
    """

    def __init__(self, path: Path | None, about: dict[str, str]) -> None:
        self.path, self.values = path, dict[int, tuple[float, float]]()
        self._file: BinaryIO | None = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._lock()
            self._read(about)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file:
            self._file.close()

    def add(self, index: int, loss: float, accuracy: float) -> None:
        """Keep a point."""
        self.values[index] = loss, accuracy
        if self._file:
            self._file.write(_record(index, loss, accuracy))
            self._file.flush()

    def _lock(self) -> None:
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f"{self.path}: another process is computing these points; wait for it, or give "
                "another output file"
            ) from None

    def _read(self, about: dict[str, str]) -> None:
        assert self._file is not None
        self._file.seek(0)
        head, end, body = self._file.read().partition(b"\n")
        line = json.dumps(about).encode()
        if not end and line.startswith(head):  # new, or killed before the first line was whole
            self._file.truncate(0)
            self._file.write(line + b"\n")
            self._file.flush()
            return
        try:
            kept = json.loads(head)
        except ValueError:
            kept = None
        if not isinstance(kept, dict):
            raise CheckpointError(f"{self.path} holds no points of a grid; remove it")
        changed = [name for name in {**about, **kept} if kept.get(name) != about.get(name)]
        if changed:
            raise CheckpointError(
                f"{self.path} holds unfinished work with other {', '.join(changed)}; "
                "remove it, or ask for the same again"
            )
        whole = 0
        for record in np.frombuffer(body[: len(body) // RECORD.itemsize * RECORD.itemsize], RECORD):
            index, loss, accuracy, _ = record.item()
            if record.tobytes() != _record(index, loss, accuracy):
                break
            self.values[index] = loss, accuracy
            whole += 1
        self._file.truncate(len(head) + 1 + whole * RECORD.itemsize)


def _record(index: int, loss: float, accuracy: float) -> bytes:
    values: bytes = np.array((index, loss, accuracy, 0), RECORD).tobytes()[:-4]
    return values + zlib.crc32(values).to_bytes(4, "little")
