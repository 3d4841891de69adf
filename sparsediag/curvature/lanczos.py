"""A few eigenpairs of a symmetric operator that is known by its products with vectors.

Block Lanczos with two-pass orthogonalisation and thick restart (see `krylov.py`). A Krylov space
contains as many copies of an eigenvalue as its block has vectors. So once the wanted pairs have
converged, a random direction probes the complement (see `probe.py`); the search ends when a probe
finds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from sparsediag.core.errors import unknown_name
from sparsediag.core.evaluation import full_precision
from sparsediag.core.rng import stream
from sparsediag.core.short_repr import short_repr
from sparsediag.curvature.krylov import Krylov, Matvec
from sparsediag.curvature.probe import Probe, margins, nearly_converged, probe_complement

SMALL_REST = 25  # dimensions that are searched completely: a probe would take about as many
Which = Literal["largest", "smallest", "magnitude"]
ORDER: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "largest": lambda values: -values,
    "smallest": lambda values: values,
    "magnitude": lambda values: -np.abs(values),
}


@dataclass(frozen=True)
class Eigenpairs:
    """The wanted eigenpairs, in the order of `which`.

    Attributes:
        values: Ritz values, (top,) float64.
        vectors: Orthonormal rows, (top, size).
        products: The operator times the vectors, from the products of the search, (top, size).
        lowest: Smallest Ritz value seen; the operator has an eigenvalue at or below it.
        asymmetry: Largest |u^T H v - v^T H u| / `norm`.
        norm: Largest magnitude seen, a lower bound of the norm of the operator.
        basis_size: Vectors in the basis at the end.
        num_matvecs: Number of products.
        probe: The last probe of the complement.
    """

    values: np.ndarray
    vectors: Tensor
    products: Tensor
    lowest: float
    asymmetry: float
    norm: float
    basis_size: int
    num_matvecs: int
    probe: Probe

    __repr__ = short_repr


@full_precision()
def eigenpairs(
    matvec: Matvec,
    like: Tensor,
    *,
    top: int = 1,
    which: Which = "largest",
    tol: float = 1e-3,
    seed: int = 0,
    block_size: int = 1,
    start: Tensor | None = None,
    max_basis: int | None = None,
    max_matvecs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Eigenpairs:
    """Compute the wanted eigenpairs of the symmetric operator `matvec`.

    Args:
        matvec: Product with a vector, (size,) -> (size,).
        like: Any vector of the operator's size, dtype and device.
        top: Number of pairs.
        which: The algebraically largest or smallest, or the largest magnitude.
        tol: Relative residual at which a pair has converged.
        seed: Seed of the random directions (the same on every device).
        block_size: Directions per step.
        start: Vectors of a similar operator, rows; their sum is the first direction.
        max_basis: Largest number of vectors in the basis before a restart; a probe may add ten
            (default: as many as fit in 256 MB of float32, but at least 40 + 3 per pair).
        max_matvecs: Largest number of products (default: 200 + 10 per pair).
        progress: Called as `progress(products, limit)`.

    >>> import torch
    >>> a = torch.diag(torch.tensor([1.0, 5.0, 5.0, 2.0], dtype=torch.float64))
    >>> eigenpairs(lambda v: a @ v, a[0], top=3).values.round(6).tolist()
    [5.0, 5.0, 2.0]
    """
    size = like.numel()
    if not 1 <= top <= size:
        raise ValueError(
            f"top={top}: need 1 or more, and at most one for each of {size} live weights"
        )
    limit = 200 + 10 * top if max_matvecs is None else max_matvecs
    if limit < top:
        raise ValueError(f"max_matvecs={max_matvecs}: need at least one for each of {top} pairs")
    if which not in ORDER:
        raise ValueError(unknown_name("end of the spectrum", which, ORDER))
    if block_size < 1:
        raise ValueError(f"block_size={block_size}: need 1 direction a step or more")
    if max_basis is None:
        max_basis = max(40 + 3 * top, 2**26 // size)
    if max_basis < top + 2 * block_size:
        raise ValueError(
            f"max_basis={max_basis}: need {top + 2 * block_size} vectors or more for top={top}"
        )
    krylov = Krylov(matvec, like, stream("lanczos", seed))
    probe, order, lowest = Probe(), ORDER[which], float("inf")
    block_size = min(block_size, limit, size)
    first_block = krylov.random(block_size)
    if start is not None and bool(start.any()):
        first_block[0] = start.to(like).sum(0)
    krylov.grow(first_block)
    while True:
        if progress:
            progress(krylov.products, limit)
        ritz = krylov.ritz(order)
        lowest = min(lowest, float(ritz.values.min()))
        scale = np.maximum(np.abs(ritz.values[:top]), krylov.eps**0.5 * krylov.norm)
        unconverged = np.flatnonzero(ritz.residuals[:top] > tol * scale)
        remaining = min(limit - krylov.products, size - len(krylov))
        if len(krylov) == size:
            probe = probe_complement(krylov, ritz, top, order, tol, 0)
        if remaining <= 0:
            break
        if len(ritz.values) >= top and not len(unconverged):
            if size - len(krylov) <= min(remaining, SMALL_REST):
                krylov.grow(krylov.random(size))
                continue
            pairs = np.arange(min(len(krylov), max(top + block_size, max_basis // 4)))
            if which == "magnitude":
                margin = margins(ritz.values[:top], tol, krylov.eps, krylov.norm)[-1]
                pairs = nearly_converged(ritz, top, margin)
            if len(pairs) < len(krylov):  # room for the probe
                krylov.shrink(ritz, pairs)
                ritz = krylov.ritz(order)
            probe_budget = min(limit - krylov.products, max(max_basis - len(krylov), 10))
            probe = probe_complement(krylov, ritz, top, order, tol, probe_budget)
            if not probe.missed:
                break
            probe = Probe()
            continue
        if len(krylov) + block_size > max_basis:
            krylov.shrink(ritz, np.arange(max(top + block_size, max_basis // 2)))
            ritz = krylov.ritz(order)
        width = min(block_size, remaining)
        residual = (
            krylov.residual_directions(ritz, unconverged, width) if len(unconverged) else None
        )
        if residual is None:
            krylov.grow(krylov.random(width))
        else:
            krylov.grow(residual, passes=0)
    vectors, products = krylov.combine(ritz.coordinates[:, :top], last=True)
    return Eigenpairs(
        values=ritz.values[:top],
        vectors=vectors,
        products=products,
        lowest=min(lowest, float(np.linalg.eigvalsh(krylov.projected)[0])),
        asymmetry=krylov.asymmetry,
        norm=krylov.norm,
        basis_size=len(krylov),
        num_matvecs=krylov.products,
        probe=probe,
    )
