"""Lanczos: a few eigenpairs of a symmetric operator that is known by its products alone.

One Krylov vector a step, orthogonalised twice against all before it (so no eigenvalue comes back
as a ghost of itself), and a Rayleigh-Ritz step in float64. A single Krylov space sees one vector
of a multiple eigenvalue; therefore, once the wanted pairs have converged, a fresh random vector
continues the search in the complement, and only a search that finds nothing new ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sparsediag.chance import stream
from sparsediag.errors import unknown

Which = Literal["largest", "smallest", "magnitude"]
ORDER: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "largest": lambda values: -values,
    "smallest": lambda values: values,
    "magnitude": lambda values: -np.abs(values),
}


@dataclass(frozen=True)
class Eigenpairs:
    """The wanted eigenpairs, best first.

    Attributes:
        values: Rayleigh quotients, (top,) float64.
        vectors: Orthonormal rows, (top, size).
        residuals: |Hv - value v| / |value|, each recomputed with a product of its own, (top,).
            A value below the square root of the rounding error, relative to the operator, counts
            as that large: rounding lets no residual be smaller.
        products: Number of products with the operator.
    """

    values: np.ndarray
    vectors: Tensor
    residuals: np.ndarray
    products: int


def eigenpairs(
    matvec: Callable[[Tensor], Tensor],
    like: Tensor,
    *,
    top: int = 1,
    which: Which = "largest",
    tol: float = 1e-3,
    seed: int = 0,
    copies: bool = True,
    max_products: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Eigenpairs:
    """Eigenpairs of the symmetric operator `matvec`.

    Args:
        matvec: Product with a vector, (size,) -> (size,).
        like: Any vector of the operator's size, dtype and device.
        top: Number of pairs.
        which: The algebraically largest or smallest, or the largest magnitude.
        tol: Relative residual at which a pair counts as found.
        seed: Seed of the start vector (the same on every device).
        copies: Once the pairs are found, search again from a random vector, for further copies of
            a multiple eigenvalue; this about doubles the products.
        max_products: Give up after so many products, before those of the residuals (default:
            100 + 10 a pair).
        progress: Called as `progress(products, limit)`.

    >>> a = torch.diag(torch.tensor([1.0, 5.0, 5.0, 2.0], dtype=torch.float64))
    >>> eigenpairs(lambda v: a @ v, a[0], top=3).values.round(6).tolist()
    [5.0, 5.0, 2.0]
    """
    size = like.numel()
    if not 1 <= top <= size:
        raise ValueError(f"top={top} eigenvalues asked of a problem with {size} live weights")
    limit = min(size, 100 + 10 * top if max_products is None else max_products)
    if limit < top:
        raise ValueError(f"max_products={max_products}: need at least one for each of {top} pairs")
    if which not in ORDER:
        raise ValueError(unknown("end of the spectrum", which, ORDER))
    generator = stream("lanczos", seed)
    krylov = _Krylov(matvec, like)
    known: np.ndarray | None = None  # the values that the search in the complement must confirm
    search_from, search_until = 0, 0
    while len(krylov) < limit:
        w = None if len(krylov) == search_from else krylov.last()
        krylov.grow(torch.randn(size, generator=generator).to(like) if w is None else w)
        if progress:
            progress(len(krylov), limit)
        values, _, residuals = krylov.ritz(top, which)
        found = len(values) == top and bool((residuals <= tol * krylov.scale(values)).all())
        if not found or len(krylov) < search_until:
            continue
        same = known is not None and np.abs(values - known).max() <= tol * np.abs(known).max()
        if same or not copies:
            break
        known, search_from = values, len(krylov)
        search_until = search_from + max(5, search_from)
    return krylov.solution(top, which)


class _Krylov:
    """An orthonormal basis Q, the projection S = Q^T H Q, and what of H Q lies outside Q."""

    def __init__(self, matvec: Callable[[Tensor], Tensor], like: Tensor) -> None:
        self.matvec = matvec
        self.basis = like.new_empty(0, like.numel())
        self.projected = np.zeros((0, 0))
        self.outside: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.projected)

    @property
    def norm(self) -> float:
        """Size of the operator, as far as it is known."""
        return float(np.abs(self.projected).max(initial=np.finfo(float).tiny))

    def scale(self, values: np.ndarray) -> np.ndarray:
        """|value|, or what rounding leaves of it, so that a zero eigenvalue converges."""
        floor = torch.finfo(self.basis.dtype).eps ** 0.5 * self.norm
        floored: np.ndarray = np.maximum(np.abs(values), floor)
        return floored

    def last(self) -> Tensor | None:
        """The last product's part outside the space; None where it is rounding error only."""
        w = self.outside.pop(len(self) - 1)
        return w if float(w.norm()) > 10 * torch.finfo(w.dtype).eps * self.norm else None

    def grow(self, w: Tensor) -> None:
        """Add the direction of `w`, with one product."""
        n = len(self)
        for _ in range(2):
            w = self._project_out(w)
            w = w / w.norm()
        for j, r in self.outside.items():
            self.outside[j] = r - (w @ r) * w
        if n == len(self.basis):
            self.basis = torch.cat([self.basis, self.basis.new_empty(max(16, n), w.numel())])
        self.basis[n] = w
        product = self.matvec(w)
        self.projected = np.pad(self.projected, (0, 1))
        column = self.basis[: n + 1] @ product
        self.projected[:, n] = self.projected[n, :] = column.double().cpu().numpy()
        self.outside[n] = self._project_out(product)

    def _project_out(self, w: Tensor) -> Tensor:
        q = self.basis[: len(self)]
        for _ in range(2):
            w = w - q.T @ (q @ w)
        return w

    def ritz(self, top: int, which: Which) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ritz values, their coordinates in the basis (columns), and |residual| of each."""
        values, coordinates = np.linalg.eigh(self.projected)
        order = np.argsort(ORDER[which](values), kind="stable")[:top]
        values, coordinates = values[order], coordinates[:, order]
        ends = torch.stack(list(self.outside.values()))
        gram = (ends @ ends.T).double().cpu().numpy()
        y = coordinates[list(self.outside)]
        return values, coordinates, np.sqrt(np.einsum("ik,ij,jk->k", y, gram, y).clip(0))

    def solution(self, top: int, which: Which) -> Eigenpairs:
        """The Ritz pairs, with residuals recomputed by one product each."""
        _, coordinates, _ = self.ritz(top, which)
        vectors = torch.from_numpy(coordinates.T.copy()).to(self.basis) @ self.basis[: len(self)]
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
        products = torch.stack([self.matvec(v) for v in vectors])
        values = (vectors * products).sum(1)
        residuals = (products - values[:, None] * vectors).norm(dim=1).double().cpu().numpy()
        values = values.double().cpu().numpy()
        order = np.argsort(ORDER[which](values), kind="stable")
        return Eigenpairs(
            values[order],
            vectors[torch.from_numpy(order).to(vectors.device)],
            (residuals / self.scale(values))[order],
            len(self) + len(vectors),
        )
