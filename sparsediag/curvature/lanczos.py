"""Lanczos: a few eigenpairs of a symmetric operator that is known by its products alone.

Block Lanczos with two-pass orthogonalisation and thick restart (see `krylov.py`). A Krylov space
sees as many copies of an eigenvalue as its block has vectors; therefore, once the wanted pairs
have converged, random directions probe the complement, and only a probe that finds nothing there
ends the search.
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

HIDDEN = 0.08  # chance of a hidden eigenvalue at which a probe is content
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
        products: What the operator makes of the vectors, by the products of the search, (top,
            size).
        rest: The values and residuals of what else the search saw, (2, seen): bounds the gaps.
        asymmetry: Largest |u^T H v - v^T H u| seen, over the size of the operator.
        norm: That size, as far as it was seen.
        rows: Vectors in the basis at the end.
        count: Number of products.
        probe: What the last probe of the complement found.
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
        best: The best value seen, nan if there was no probe.
        missed: Whether it is better than the least of the wanted.
        chance: That a better one is there and stayed hidden, by the growth that the spread of the
            values seen allows it (Chebyshev's polynomials).
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
    """Eigenpairs of the symmetric operator `matvec`.

    Args:
        matvec: Product with a vector, (size,) -> (size,).
        like: Any vector of the operator's size, dtype and device.
        top: Number of pairs.
        which: The algebraically largest or smallest, or the largest magnitude.
        tol: Relative residual at which a pair counts as found.
        seed: Seed of the random directions (the same on every device).
        block_size: Directions a step.
        start: Vectors of a similar operator, rows; their sum is the first direction.
        max_basis: Vectors kept at most, without a probe of ten; the search restarts beyond
            (default: what 256 MB of float32 hold, and 40 + 3 a pair at least).
        max_matvecs: Give up after so many products (default: 100 + 10 a pair).
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
        worst = krylov.worst(ritz, open_pairs, min(block_size, left)) if len(open_pairs) else None
        if worst is None:
            krylov.grow(krylov.random(min(block_size, left)))
        else:
            krylov.grow(worst, passes=0)
    now = krylov.ritz(order)
    if now.residuals[:top].max() <= ritz.residuals[:top].max():  # the probe may mix close ones
        ritz = now
    vectors, products = krylov.combine(ritz.coordinates[:, :top])
    return Eigenpairs(
        values=ritz.values[:top],
        vectors=vectors,
        products=products,
        rest=np.stack([now.values[top:], now.residuals[top:]]),
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
    """Grow from a random direction until an eigenvalue better than the wanted would have shown.

    After j steps an eigenvector at distance x from the middle of the spectrum that is seen, in
    units of half its width, has grown by g^(j - 1), g = x + sqrt(x^2 - 1), over the share of
    1 / sqrt(size) that a random direction gives it. The search ends where the chance that it is
    still hidden is below 8 %, or at `limit` products.
    """
    first, least = len(krylov), float(wanted[-1])
    margins = tol * np.abs(wanted) + 10 * krylov.eps * krylov.norm
    best, chance, count = float("nan"), 1.0, 0
    while count < limit and chance > HIDDEN and len(krylov) < krylov.size:
        last = krylov.last() if count else None
        if last is None:
            krylov.grow(krylov.random(1))
        else:
            krylov.grow(last, passes=0)
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
        if (
            abs(ahead) <= margins[-1]
        ):  # one more copy of the least: a better one would have outgrown it
            chance = HIDDEN
    if len(krylov) == krylov.size:
        chance = 0.0
    now = krylov.ritz(order).values[: len(wanted)]
    gain = order(wanted) - order(now)
    if (gain > margins).any():  # it lay partly in the basis and partly outside
        return Probe(float(now[gain.argmax()]), True, 0.0, count)
    return Probe(best, False, chance, count)
