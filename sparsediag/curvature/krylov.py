"""An orthonormal basis Q that grows by products with a symmetric operator H.

The basis keeps S = Q^T H Q in float64, and the part of H Q outside of it: H Q = Q S + F C^T. So the
residual of every Ritz pair is known without a product, and the basis can be shrunk to its best Ritz
vectors at any time (thick restart, Wu & Simon, SIAM J. Matrix Anal. Appl. 22, 2000). One step of
growth waits for the device once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparsediag.curvature.rows import Rows, row_products

Matvec = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Ritz:
    """The eigenpairs of S, best first.

    Attributes:
        values: (m,).
        coordinates: Columns in the basis, (m, m).
        residuals: |H v - value v| of the pair in the whole space, (m,).
    """

    values: np.ndarray
    coordinates: np.ndarray
    residuals: np.ndarray


class Krylov:
    """A growing basis for the operator `matvec`.

    Args:
        matvec: Product with a vector, (size,) -> (size,).
        like: Any vector of the operator's size, dtype and device.
        generator: Draws the random directions, on the CPU so that they are the same everywhere.

    Attributes:
        projected: S, (m, m).
        norm: Largest magnitude in S so far, a lower bound of the norm of H.
        asymmetry: Largest |u^T H v - v^T H u| / `norm` so far.
        products: Number of products so far.

    >>> a = torch.diag(torch.tensor([1.0, 5.0, 2.0], dtype=torch.float64))
    >>> krylov = Krylov(lambda v: a @ v, a[0], torch.Generator())
    >>> krylov.grow(krylov.random(1))
    >>> while (directions := krylov.next_directions()) is not None:
    ...     krylov.grow(directions)
    >>> krylov.ritz(np.negative).values.round(9).tolist()
    [5.0, 2.0, 1.0]
    """

    def __init__(self, matvec: Matvec, like: Tensor, generator: torch.Generator) -> None:
        self.matvec, self.generator = matvec, generator
        self.size = like.numel()
        self.eps = float(torch.finfo(like.dtype).eps)
        self._rows = Rows(like)
        self._outside = like.new_empty(0, self.size)
        self._gram: np.ndarray = np.zeros((0, 0))
        self._first_lengths: np.ndarray = np.zeros(0)  # of the rows of F when they were added
        self._coupling: np.ndarray = np.zeros((0, 0))
        self._newest = 0
        self.projected: np.ndarray = np.zeros((0, 0))
        self.norm = float(np.finfo(float).tiny)
        self.asymmetry, self.products = 0.0, 0

    def __len__(self) -> int:
        return len(self.projected)

    @property
    def vectors(self) -> Tensor:
        """Q as rows, (m, size)."""
        return self._rows.tensor

    @property
    def remainder(self) -> float:
        """Length of the part of the newest product outside the basis."""
        return float(np.sqrt(self._gram[-1, -1]))

    def random(self, block: int) -> Tensor:
        """Return random directions, as rows."""
        block = min(block, self.size - len(self))
        return torch.randn(block, self.size, generator=self.generator).to(self._outside)

    def next_directions(self, block: int = 1) -> Tensor | None:
        """Return the part of the newest products outside the basis, as unit rows, or None."""
        rows = np.arange(len(self._gram) - self._newest, len(self._gram))
        return self._normalise(rows[:block])

    def residual_direction(self, coordinates: np.ndarray) -> tuple[Tensor | None, float]:
        """Return the residual of the vector with these coordinates as a unit row, and its length.

        The row is None if it is only rounding.
        """
        mix = self._coupling.T @ coordinates
        length = float(np.sqrt(max(mix @ self._gram @ mix, 0)))
        if length <= 10 * self.eps * self.norm or len(self) == self.size:
            return None, length
        return _to(mix[None] / length, self._outside) @ self._outside, length

    def residual_directions(self, ritz: Ritz, pairs: np.ndarray, block: int = 1) -> Tensor | None:
        """Return the directions outside the basis with most of these pairs' residuals, or None."""
        shares = np.abs(self._coupling.T @ ritz.coordinates[:, pairs]).max(axis=1)
        order = np.argsort(-shares * np.sqrt(self._gram.diagonal()), kind="stable")
        return self._normalise(order[:block])

    def _normalise(self, rows: np.ndarray) -> Tensor | None:
        """Return these rows of F as independent unit rows, or None if they are only rounding."""
        lengths = np.sqrt(self._gram.diagonal())[rows]
        rows, lengths = (a[lengths > 10 * self.eps * self.norm] for a in (rows, lengths))
        if not len(rows) or len(self) == self.size:
            return None
        cosines = self._gram[np.ix_(rows, rows)] / np.outer(lengths, lengths)
        if np.linalg.eigvalsh(cosines)[0] < 1e-4:  # nearly dependent
            rows, lengths = rows[:1], lengths[:1]
        rows, lengths = (a[: self.size - len(self)] for a in (rows, lengths))
        index = torch.from_numpy(rows).to(self._outside.device)
        w = self._outside[index] / _to(lengths, self._outside)[:, None]
        if (lengths < 0.1 * self._first_lengths[rows]).any():  # the rounding grew tenfold
            self._rows.subtract(self._rows.dots(w), w)
            sizes = row_products(w, w).diagonal().sqrt()
            sound = sizes > 0.7  # the others are mostly rounding
            if not bool(sound.any()):
                return None
            w = w[sound] / sizes[sound, None].to(w)
        return w

    def grow(self, directions: Tensor, *, passes: int = 2) -> None:
        """Add `directions`, rows, with a product for each.

        Args:
            directions: Rows.
            passes: Times that they are made orthogonal to the basis: 0 for the results of
                `next_directions` and `residual_directions`, which already are.
        """
        w = self._orthonormal(directions, passes)
        self.products += len(w)
        self.adopt(w, torch.stack([self.matvec(v) for v in w]))

    def adopt(self, w: Tensor, products: Tensor) -> None:
        """Add orthonormal rows whose products are known."""
        m, b = len(self), len(w)
        self._rows.append(w)
        self.projected = np.pad(self.projected, (0, b))
        self._coupling = np.pad(self._coupling, ((0, b), (0, 0)))
        inside = row_products(self._outside, w)
        self._outside -= inside.to(w) @ w
        rest = products.clone()
        first = self._rows.dots(rest)
        second = self._rows.subtract_and_dot(first, rest)
        self._rows.subtract(second, rest)
        self._outside = torch.cat([self._outside, rest])
        parts = [first + second, inside, row_products(self._outside, self._outside)]
        packed = torch.cat([p.reshape(-1) for p in parts]).double().cpu().numpy()
        if not np.isfinite(packed).all():
            raise ValueError("a product with the matrix is not finite: the loss has no curvature")
        ends = np.cumsum([p.numel() for p in parts])[:-1]
        h, coupled, gram = (
            a.reshape(p.shape) for a, p in zip(np.split(packed, ends), parts, strict=True)
        )
        k = len(coupled)
        self.projected[m:, :], self.projected[:, m:] = h, h.T
        self.projected[m:, m:] = (h[:, m:] + h[:, m:].T) / 2
        self.norm = max(self.norm, float(np.abs(self.projected).max()))
        expected = self._coupling[:m] @ coupled  # Q^T H w, as known from H Q
        difference = np.abs(expected - h[:, :m].T).max(initial=0)
        difference = max(difference, np.abs(h[:, m:] - h[:, m:].T).max())
        self.asymmetry = max(self.asymmetry, float(difference) / self.norm)
        self._coupling = np.pad(self._coupling, ((0, 0), (0, b)))
        self._coupling[m:, k:] = np.eye(b)
        self._gram, self._newest = gram, b
        self._first_lengths = np.append(self._first_lengths, np.sqrt(gram.diagonal()[k:]))
        self._drop_rounding()

    def ritz(self, order: Callable[[np.ndarray], np.ndarray]) -> Ritz:
        """Return the eigenpairs of S, sorted by `order(values)`."""
        values, coordinates = np.linalg.eigh(self.projected)
        best = np.argsort(order(values), kind="stable")
        values, coordinates = values[best], coordinates[:, best]
        y = self._coupling.T @ coordinates
        squares = np.einsum("ik,ij,jk->k", y, self._gram, y)
        return Ritz(values, coordinates, np.sqrt(squares.clip(0)))

    def combine(self, coordinates: np.ndarray, *, last: bool = False) -> tuple[Tensor, Tensor]:
        """Return the vectors with these coordinates (columns), and their products, as rows.

        The coordinates may be from before the basis grew. After the `last` call the basis is gone:
        the vectors have taken its memory.
        """
        coordinates = np.pad(coordinates, ((0, len(self) - len(coordinates)), (0, 0)))
        inside, outside = self.projected @ coordinates, self._coupling.T @ coordinates
        products = self._rows.combine(_to(inside.T, self._outside))
        products.addmm_(_to(outside.T, self._outside), self._outside)
        if last:
            self._rows.replace(_to(coordinates.T, self._outside))
            return self._rows.tensor, products
        return self._rows.combine(_to(coordinates.T, self._outside)), products

    def shrink(self, ritz: Ritz, pairs: np.ndarray) -> None:
        """Restart the basis from these Ritz vectors."""
        y = ritz.coordinates[:, pairs]
        self._rows.replace(_to(y.T, self._outside))
        self.projected = np.diag(ritz.values[pairs])
        self._coupling = np.asarray(y.T @ self._coupling)

    def _orthonormal(self, w: Tensor, passes: int) -> Tensor:
        for _ in range(passes):
            w = _orthonormalise(w)
            self._rows.subtract(self._rows.dots(w), w)
        return _orthonormalise(w)

    def _drop_rounding(self) -> None:
        """Remove the rows of F that are only rounding since the basis grew."""
        lengths = np.sqrt(self._gram.diagonal())
        significant = lengths > 10 * self.eps * self.norm
        significant[len(significant) - self._newest :] = True
        if not significant.all():
            index = torch.from_numpy(np.flatnonzero(significant)).to(self._outside.device)
            self._outside = self._outside[index]
            self._coupling = self._coupling[:, significant]
            self._gram = self._gram[np.ix_(significant, significant)]
            self._first_lengths = self._first_lengths[significant]


def _orthonormalise(w: Tensor) -> Tensor:
    """Return orthonormal rows that span the same space."""
    if len(w) == 1:
        return w / row_products(w, w).sqrt().to(w)
    rows: Tensor = torch.linalg.qr(w.T).Q.T.contiguous()
    return rows


def _to(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(like)
