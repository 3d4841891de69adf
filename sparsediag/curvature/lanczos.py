"""A few eigenpairs of a symmetric operator that is known by its products with vectors.

Block Lanczos with two-pass orthogonalisation and thick restart (see `krylov.py`). A Krylov space
contains as many copies of an eigenvalue as its block has vectors. So once the wanted pairs have
converged, a random direction probes the complement; the search ends when a probe finds nothing.
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
from sparsediag.curvature.krylov import Krylov, Matvec

MAX_CHANCE = 0.08  # of a missed eigenvalue at which a probe ends
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
        values: Ritz values, (top,) float64.
        vectors: Orthonormal rows, (top, size).
        products: The operator times the vectors, from the products of the search, (top, size).
        rest: Values and residuals of the other Ritz pairs, (2, others), which bound the gaps.
        asymmetry: Largest |u^T H v - v^T H u| / `norm`.
        norm: Largest magnitude seen, a lower bound of the norm of the operator.
        rows: Vectors in the basis at the end.
        count: Number of products.
        probe: The last probe of the complement.
    """

    values: np.ndarray
    vectors: Tensor
    products: Tensor
    rest: np.ndarray
    asymmetry: float
    norm: float
    rows: int
    count: int
    probe: Probe


@dataclass(frozen=True)
class Probe:
    """A search of the complement from a random direction.

    Attributes:
        best: The best value seen, NaN if there was no probe.
        missed: Whether it is better than the last of the wanted values.
        chance: Bound on the chance that a better value exists and was not seen, from the growth
            that the range of the seen values gives it (Chebyshev polynomials).
        count: Number of products.
    """

    best: float = float("nan")
    missed: bool = False
    chance: float = 1.0
    count: int = 0


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
        max_matvecs: Largest number of products (default: 100 + 10 per pair).
        progress: Called as `progress(products, limit)`.

    >>> import torch
    >>> a = torch.diag(torch.tensor([1.0, 5.0, 5.0, 2.0], dtype=torch.float64))
    >>> eigenpairs(lambda v: a @ v, a[0], top=3).values.round(6).tolist()
    [5.0, 5.0, 2.0]
    """
    size = like.numel()
    if not 1 <= top <= size:
        raise ValueError(f"top={top} eigenvalues asked of a problem with {size} live weights")
    limit = 100 + 10 * top if max_matvecs is None else max_matvecs
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
    probe, order = Probe(), ORDER[which]
    block_size = min(block_size, limit, size)
    first = krylov.random(block_size)
    if start is not None and bool(start.any()):
        first[0] = start.to(like).sum(0)
    krylov.grow(first)
    while True:
        if progress:
            progress(krylov.products, limit)
        ritz = krylov.ritz(order)
        scale = np.maximum(np.abs(ritz.values[:top]), krylov.eps**0.5 * krylov.norm)
        open_pairs = np.flatnonzero(ritz.residuals[:top] > tol * scale)
        left = min(limit - krylov.products, size - len(krylov))
        if len(krylov) == size:
            probe = Probe(chance=0.0)
        if left <= 0:
            break
        if len(ritz.values) >= top and not len(open_pairs):
            room = min(left, krylov.products, max(max_basis - len(krylov), 10))
            probe = probe_complement(krylov, ritz.values[:top], order, tol, room)
            if not probe.missed:
                break
            probe = Probe()
            continue
        if len(krylov) + block_size > max_basis:
            krylov.shrink(ritz, max(top + block_size, max_basis // 2))
            ritz = krylov.ritz(order)
        width = min(block_size, left)
        residual = krylov.residual_directions(ritz, open_pairs, width) if len(open_pairs) else None
        if residual is None:
            krylov.grow(krylov.random(width))
        else:
            krylov.grow(residual, passes=0)
    last = krylov.ritz(order)
    if last.residuals[:top].max() <= ritz.residuals[:top].max():  # a probe may mix close pairs
        ritz = last
    vectors, products = krylov.combine(ritz.coordinates[:, :top])
    return Eigenpairs(
        values=ritz.values[:top],
        vectors=vectors,
        products=products,
        rest=np.stack([last.values[top:], last.residuals[top:]]),
        asymmetry=krylov.asymmetry,
        norm=krylov.norm,
        rows=len(krylov),
        count=krylov.products,
        probe=probe,
    )


def probe_complement(
    krylov: Krylov,
    wanted: np.ndarray,
    order: Callable[[np.ndarray], np.ndarray],
    tol: float,
    limit: int,
) -> Probe:
    """Grow from a random direction until an eigenvalue better than the wanted would have appeared.

    A random direction contains a share of about 1 / sqrt(size) of an eigenvector. After j steps,
    one at distance x from the middle of the seen spectrum, in units of half its width, has grown by
    g^(j - 1), g = x + sqrt(x^2 - 1). The probe ends when the chance that a better eigenvalue was
    not seen is below 8 %, or after `limit` products.
    """
    first, least = len(krylov), float(wanted[-1])
    margins = tol * np.abs(wanted) + 10 * krylov.eps * krylov.norm
    best, chance, count = float("nan"), 1.0, 0
    while count < limit and chance > MAX_CHANCE and len(krylov) < krylov.size:
        directions = krylov.next_directions() if count else None
        if directions is None:
            krylov.grow(krylov.random(1))
        else:
            krylov.grow(directions, passes=0)
        count += 1
        seen = np.linalg.eigvalsh(krylov.projected[first:, first:])
        best = float(seen[np.argmin(order(seen))])
        ahead = float(order(np.array(least)) - order(np.array(best)))
        if ahead > margins[-1]:
            return Probe(best, True, 0.0, count)
        symmetric = order(np.array(1.0)) == order(np.array(-1.0))
        low, high = (-abs(best), abs(best)) if symmetric else (seen[0], seen[-1])
        half = max((high - low) / 2, krylov.eps * krylov.norm)
        x = max(1.0, abs(least - (high + low) / 2) / half)
        growth = (x + np.sqrt(x * x - 1)) ** (count - 1)
        chance = min(1.0, float(0.8 * np.sqrt(krylov.size) / growth))
        if abs(ahead) <= margins[-1]:
            chance = MAX_CHANCE  # one more copy of the last: a better one would have outgrown it
    if len(krylov) == krylov.size:
        chance = 0.0
    values = krylov.ritz(order).values[: len(wanted)]
    gain = order(wanted) - order(values)
    if (gain > margins).any():  # its vector is partly in the basis and partly outside
        return Probe(float(values[gain.argmax()]), True, 0.0, count)
    return Probe(best, False, chance, count)
