"""Long vectors as rows, in blocks that stay where they are while others are added.

A basis of a million-weight network fills the memory, so nothing here copies all of it. Sums over
millions of float32 numbers are off by 1e-3, too much for an orthogonal basis: at most
`FLOAT32_TERMS` are added up in float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

FLOAT32_TERMS = 2**15  # that are added up in float32
BLOCK = 2**22  # numbers in a block, if that is more than 8 rows
COLUMNS = 2**19  # that are exchanged at a time


class Rows:
    """A growing matrix of rows.

    Args:
        like: Any vector of their size, dtype and device.

    >>> rows = Rows(torch.zeros(3))
    >>> rows.append(torch.eye(3)[:2])
    >>> rows.dots(torch.tensor([[5.0, 6.0, 7.0]])).tolist()
    [[5.0, 6.0]]
    """

    def __init__(self, like: Tensor) -> None:
        self._blocks: list[Tensor] = []
        self._like, self._each = like, max(8, BLOCK // max(1, like.numel()))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def tensor(self) -> Tensor:
        """All rows as one tensor: a copy if there are several blocks."""
        filled = self._filled()
        if not filled:
            return self._like.new_empty(0, self._like.numel())
        return filled[0] if len(filled) == 1 else torch.cat(filled)

    def append(self, rows: Tensor) -> None:
        """Add rows, (k, size)."""
        while len(rows):
            at = self._count % self._each
            if at == 0:
                self._blocks.append(self._like.new_empty(self._each, self._like.numel()))
            some = rows[: self._each - at]
            self._blocks[-1][at : at + len(some)] = some
            self._count, rows = self._count + len(some), rows[len(some) :]

    def dots(self, vectors: Tensor) -> Tensor:
        """Return the dot products of vectors, (k, size), with the rows: (k, rows) in float64."""
        empty = vectors.new_empty(len(vectors), 0, dtype=torch.float64)
        return torch.cat([empty, *(row_products(vectors, b) for b in self._filled())], dim=1)

    def subtract(self, parts: Tensor, vectors: Tensor) -> None:
        """Subtract parts @ rows, (k, rows) @ (rows, size), from vectors in place."""
        for block, part in self._with(parts.to(vectors)):
            vectors.addmm_(part, block, alpha=-1)

    def subtract_and_dot(self, parts: Tensor, vectors: Tensor) -> Tensor:
        """Do both, `subtract` and `dots`.

        On a CPU they are done piece by piece, while the pieces are in the cache.
        """
        if vectors.device.type != "cpu":
            self.subtract(parts, vectors)
            return self.dots(vectors)
        blocks = list(self._with(parts.to(vectors)))
        total = vectors.new_zeros(len(vectors), len(self), dtype=torch.float64)
        for start, x in _pieces(vectors):
            pieces = [(b[:, start : start + x.shape[1]], part) for b, part in blocks]
            for piece, part in pieces:
                x.addmm_(part, piece, alpha=-1)
            if pieces:
                total += torch.cat([x @ piece.T for piece, _ in pieces], dim=1)
        return total

    def combine(self, coordinates: Tensor) -> Tensor:
        """Return coordinates @ rows, (k, rows) @ (rows, size)."""
        result = self._like.new_zeros(len(coordinates), self._like.numel())
        self.subtract(-coordinates, result)
        return result

    def replace(self, coordinates: Tensor) -> None:
        """Let coordinates @ rows take the place of the rows, (k, rows) with k at most rows."""
        count, coordinates = len(coordinates), coordinates.to(self._like)
        filled = self._filled()
        for start in range(0, self._like.numel(), COLUMNS):
            columns = slice(start, start + COLUMNS)
            new = coordinates @ torch.cat([b[:, columns] for b in filled])
            for block, some in zip(filled, new.split(self._each), strict=False):
                block[: len(some), columns] = some
        del self._blocks[-(-count // self._each) :]
        self._count = count

    def _filled(self) -> list[Tensor]:
        """Return the part of each block that has rows."""
        return [b[: self._count - i * self._each] for i, b in enumerate(self._blocks)]

    def _with(self, parts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each block with its columns of `parts`."""
        return zip(self._filled(), parts.split(self._each, dim=1), strict=False)


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """Return the dot products of rows with rows, (len(a), len(b)) in float64."""
    if a.device.type == "cpu":
        total = a.new_zeros(len(a), len(b), dtype=torch.float64)
        for start, x in _pieces(a):
            total += x @ b[:, start : start + x.shape[1]].T
        return total
    return _batched_row_products(a, b)


def _batched_row_products(a: Tensor, b: Tensor) -> Tensor:
    """Return the same from one batched product of all pieces, which is fast on a GPU."""
    pieces = a.shape[1] // FLOAT32_TERMS
    most = pieces * FLOAT32_TERMS
    x, y = (t[:, :most].view(len(t), pieces, FLOAT32_TERMS).transpose(0, 1) for t in (a, b))
    total: Tensor = (x @ y.mT).sum(0, dtype=torch.float64)
    return total + a[:, most:] @ b[:, most:].T


def _pieces(a: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield columns, few enough to be added up in float32, with the number of the first one."""
    columns = a.shape[1] if a.dtype == torch.float64 else FLOAT32_TERMS
    start = 0
    for piece in a.split(max(1, columns), dim=1):
        yield start, piece
        start += piece.shape[1]
