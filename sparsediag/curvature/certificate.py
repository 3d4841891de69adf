"""Certificates of eigenpairs: residuals, error intervals, and a search for missed eigenvalues.

For a symmetric H, an eigenvalue is within |Hv - value v| of each value, and within about
residual^2 / gap if the gap to the rest of the spectrum is known. The angle between v and its
eigenvector is at most asin(residual / gap) (Davis & Kahan, SIAM J. Numer. Anal. 7, 1970; Parlett,
The Symmetric Eigenvalue Problem, chapters 4, 10, 11). The probe of the complement bounds the rest
of the spectrum.

The products Hv of a search are checked by new ones, of each v or of random combinations. Let the
rows of E be the errors of the products over their values, and g normal. That of the combination is
E^T g, which is at least |n| |E| long with a normal n. So |E| is at most the longer one of two, over
`SMALL`, except with a chance of `CHECK_CHANCE` / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.rng import stream
from sparsediag.curvature.krylov import Krylov, Matvec
from sparsediag.curvature.lanczos import ORDER, Eigenpairs, Which
from sparsediag.curvature.probe import MAX_CHANCE, Probe, probe_complement, smallest
from sparsediag.curvature.rows import row_products

DRAWS = 2  # random combinations of the products
CHECK_CHANCE = 1e-3  # that they hide an error
SMALL = 2**0.5 * float(torch.erfinv(torch.tensor((CHECK_CHANCE / 2) ** (1 / DRAWS)).double()))


@dataclass(frozen=True)
class Certificate:
    """Evidence for and against a set of eigenpairs.

    Attributes:
        residuals: |Hv - value v| / |value| of each pair, (top,). A |value| below the square root of
            the rounding error, relative to H, counts as that large.
        intervals: Low and high end for each value, (top, 2): the i-th eigenvalue is between them,
            copies counted, except with a chance of `MAX_CHANCE` of the probe and `CHECK_CHANCE`,
            with the noise of the products taken into account. If the probe has not bounded the
            rest: an eigenvalue is.
        angles: Largest angle between each vector and its eigenvector in degrees, with the same
            chance, (top,); 90 if the gap to the others is too small, or not known.
        orthogonality: Largest |v_i . v_j - [i = j]|.
        copies: Number of vectors that repeat another one.
        noise: Largest distance between two evaluations of the same product, over |value|; of
            random combinations of these, if they were checked.
        asymmetry: Largest |u . Hv - v . Hu|, over the largest magnitude seen of H.
        probe: The search of the complement of the vectors.
        count: Number of products that the certificate took.
        tol: Relative residual up to which a pair has converged.
        eps: Rounding error of the numbers.
    """

    residuals: np.ndarray
    intervals: np.ndarray
    angles: np.ndarray
    orthogonality: float
    copies: int
    noise: float
    asymmetry: float
    probe: Probe
    count: int
    tol: float
    eps: float

    @property
    def doubts(self) -> list[str]:
        """Reasons not to trust the pairs; empty if there are none."""
        failed, worst = (~(self.residuals <= self.tol)).sum(), self.residuals.max()
        rounding = 10 * self.eps**0.5
        if not np.isfinite(worst):
            return ["the values, the vectors or their products are not finite"]
        doubts = []
        if failed:
            pairs = f"{failed} of {len(self.residuals)} pairs"
            doubts.append(
                f"{pairs} have a residual above {self.tol:g}, the worst {worst:.1e}: raise "
                "max_matvecs or tol"
            )
        if self.copies:
            doubts.append(f"{self.copies} of the vectors repeat another one: use another seed")
        if self.orthogonality > rounding:
            doubts.append(
                f"the vectors are not orthogonal: {self.orthogonality:.1e}: lower tol, or use "
                "another solver"
            )
        if self.noise > self.tol:
            doubts.append(
                f"two evaluations of the same product differ by {self.noise:.1e}: use float64, or "
                "a CPU"
            )
        if self.asymmetry > max(self.tol, rounding):
            doubts.append(
                f"the matrix is not symmetric: {self.asymmetry:.1e}: use float64, or look for an "
                "operation whose backward pass is wrong"
            )
        if self.probe.count == 0 and self.probe.chance > 0:
            doubts.append(
                "the limit of products was reached before the complement was probed: raise "
                "max_matvecs"
            )
        if self.probe.count and self.probe.chance > MAX_CHANCE:
            chance, count = f"{self.probe.chance:.1g}", self.probe.count
            doubts.append(
                f"an eigenvalue may have been missed: chance up to {chance} after {count} products "
                "that looked for one; raise max_matvecs"
            )
        if self.probe.missed:
            doubts.append(
                f"an eigenvalue as good as {self.probe.best:.6g} was missed: raise max_matvecs or "
                "top"
            )
        return doubts

    def checks(self) -> dict[str, float]:
        """Return the numbers that hold for all pairs together."""
        return {
            "orthogonality": self.orthogonality,
            "copies": self.copies,
            "noise": self.noise,
            "asymmetry": self.asymmetry,
            "hidden": self.probe.chance,
            "probe": self.probe.count,
            "products": self.count,
        }


def certify(
    matvec: Matvec,
    values: np.ndarray,
    vectors: Tensor,
    *,
    which: Which = "largest",
    tol: float = 1e-3,
    search: Eigenpairs | None = None,
    each: bool = True,
    seed: int = 0,
) -> Certificate:
    """Check eigenpairs of the symmetric operator `matvec`.

    Args:
        matvec: Product with a vector, (size,) -> (size,).
        values: (top,).
        vectors: Unit rows, (top, size).
        which: The end of the spectrum that they should be of.
        tol: Relative residual up to which a pair has converged.
        search: The search that found them, which has probed the complement and knows other Ritz
            pairs; without it the certificate makes a probe.
        each: Multiply each vector again, or only if two random combinations leave a doubt.
        seed: Seed of the probe and of the combinations.

    >>> a = torch.diag(torch.tensor([1.0, 5.0, 2.0], dtype=torch.float64))
    >>> vectors = torch.eye(3).double()[[1, 0]]
    >>> certify(lambda v: a @ v, np.array([5.0, 1.0]), vectors).doubts
    ['an eigenvalue as good as 2 was missed: raise max_matvecs or top']
    """
    top, eps = len(values), float(torch.finfo(vectors.dtype).eps)
    least = float(np.finfo(float).tiny) ** 0.25
    norm = max(float(np.abs(values).max()), search.norm if search else 0, least)
    scale = np.maximum(np.abs(values), eps**0.5 * norm)
    check = None
    if search is not None and not each and top > DRAWS:
        check = _check_combinations(matvec, vectors, search.products, scale, seed)
    if check is None or not check.error <= tol:
        done = check.count if check else 0
        check = _check_each(matvec, vectors, search.products if search else None, scale, done)
    products, count = check.products, check.count
    if not (np.isfinite(values).all() and bool((vectors + products).isfinite().all())):
        nan, bounds = float("nan"), np.tile([-np.inf, np.inf], (top, 1))
        residuals, angles = np.full(top, np.inf), np.full(top, 90.0)
        return Certificate(residuals, bounds, angles, nan, 0, nan, nan, Probe(), count, tol, nan)
    gram = _to_numpy(row_products(vectors, vectors))
    bilinear = _to_numpy(row_products(vectors, products))
    scaled = torch.from_numpy(values).to(products)[:, None] * vectors
    residuals = _to_numpy((products - scaled).norm(dim=1))
    if search is None:
        krylov = Krylov(matvec, vectors[0], stream("certificate", seed))
        krylov.adopt(*_orthonormalise(gram, vectors, products))
        ritz = krylov.ritz(ORDER[which])
        limit = 200 + 10 * top
        probe = probe_complement(krylov, ritz, len(ritz.values), ORDER[which], tol, limit)
        norm, asymmetry = max(norm, krylov.norm), krylov.asymmetry
        count += probe.count
    else:
        probe, asymmetry = search.probe, search.asymmetry
    orthogonality = float(np.abs(gram - np.eye(top)).max())
    rounding = (10 * eps + 50 * np.finfo(float).eps) * norm
    misses = residuals + check.error * scale + rounding
    if np.isfinite(probe.bound) and orthogonality <= 10 * eps**0.5:
        intervals = _ritz_intervals(values, vectors, check, scale, bilinear, probe.bound, which)
        intervals += np.outer(check.inner_error + rounding, [-1, 1])
    else:
        intervals = values[:, None] + np.outer(misses, [-1, 1])
    return Certificate(
        residuals=residuals / scale,
        intervals=intervals,
        angles=_angles(values, misses, intervals, probe.bound, which),
        orthogonality=orthogonality,
        copies=top - int(np.linalg.matrix_rank(gram, tol=0.5, hermitian=True)),
        noise=check.noise,
        asymmetry=max(asymmetry, float(np.abs(bilinear - bilinear.T).max()) / norm),
        probe=probe,
        count=count,
        tol=tol,
        eps=eps,
    )


@dataclass(frozen=True)
class _Check:
    """A second evaluation of the products.

    Attributes:
        products: The products to judge the pairs by, (top, size).
        error: Bound on |E|, the spectral norm of their errors over the values.
        inner_error: Bound on what the errors within the space of the vectors do to each value.
        noise: See `Certificate`.
        count: Number of products that it took.
    """

    products: Tensor
    error: float
    inner_error: np.ndarray
    noise: float
    count: int


def _check_combinations(
    matvec: Matvec, vectors: Tensor, known: Tensor, scale: np.ndarray, seed: int
) -> _Check:
    """Check the known products by random combinations of them.

    With errors of at most e in the space of the vectors, over the values, the matrix there is off
    by at most e |value| on its diagonal, as it is symmetric; so is each eigenvalue.
    """
    g = torch.randn(DRAWS, len(vectors), generator=stream("certificate", seed), dtype=torch.float64)
    mix = (g / torch.from_numpy(scale)).to(known)
    differences = torch.stack([matvec(v) for v in mix @ vectors]) - mix @ known
    lengths = differences.double().norm(dim=1).cpu()
    inner = float(row_products(differences, vectors).norm(dim=1).max()) / SMALL * scale
    noise = float((lengths / g.norm(dim=1)).max())
    return _Check(known, float(lengths.max()) / SMALL, inner, noise, DRAWS)


def _check_each(
    matvec: Matvec, vectors: Tensor, known: Tensor | None, scale: np.ndarray, count: int
) -> _Check:
    """Evaluate each product, and compare it with the known one, or the first with another."""
    products = torch.stack([matvec(v) for v in vectors])
    count += len(vectors)
    if known is None:
        known, count = matvec(vectors[0])[None], count + 1
    differences = known - products[: len(known)]
    squares, scale = _to_numpy(row_products(differences, differences)), scale[: len(known)]
    if not (np.isfinite(squares).all() and np.isfinite(scale).all()):
        return _Check(products, np.nan, scale * np.nan, np.nan, count)
    error = float(np.linalg.norm(squares / scale / scale[:, None], 2)) ** 0.5
    inner = float(np.linalg.norm(squares, 2)) ** 0.5 * np.ones(len(vectors))
    noise = float((squares.diagonal() ** 0.5 / scale).max())
    return _Check(products, error, inner, noise, count)


def _ritz_intervals(
    values: np.ndarray,
    vectors: Tensor,
    check: _Check,
    scale: np.ndarray,
    bilinear: np.ndarray,
    bound: float,
    which: Which,
) -> np.ndarray:
    """Return an interval around each value for its eigenvalue, (top, 2).

    The operator is [[K, R^T], [R, C]] in a basis that begins with the vectors, and C has nothing
    better than `bound`. So the i-th eigenvalue is not worse than that of K (Cauchy), and not better
    than an x beyond the bound if that of K + R^T R / (x - bound) is not (Schur complement).
    """
    inner = (bilinear + bilinear.T) / 2
    outside = check.products - torch.from_numpy(inner).to(vectors) @ vectors
    squares = _to_numpy(row_products(outside, outside))
    relative = float(np.linalg.norm(squares / scale / scale[:, None], 2)) ** 0.5
    squares += np.diag((2 * relative + check.error) * check.error * scale**2)  # at most
    length, order = float(np.linalg.norm(squares, 2)) ** 0.5, ORDER[which]
    edge, intervals = -float(order(np.array(bound))), np.empty((len(values), 2))
    for i, value in enumerate(np.linalg.eigvalsh(inner)):
        sign = np.sign(-order(np.array(1.0))) if which != "magnitude" else np.copysign(1.0, value)
        level, rank = float(sign * value), i if sign > 0 else len(values) - 1 - i

        def not_better(x: float, sign: float = sign, rank: int = rank) -> bool:
            return bool(np.linalg.eigvalsh(sign * inner + squares / (x - edge))[rank] <= x)

        high = (level + edge) / 2 + float(np.hypot((level - edge) / 2, length))
        farthest = sign * smallest(not_better, max(level, edge), high)
        k = np.argsort(values)[i]
        intervals[k] = min(value, farthest, values[k]), max(value, farthest, values[k])
    return intervals


def _orthonormalise(gram: np.ndarray, v: Tensor, hv: Tensor) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis of the space of `v`, and its products."""
    squares, rotation = np.linalg.eigh(gram)
    significant = squares > 1e-2
    mix = np.ascontiguousarray((rotation[:, significant] / np.sqrt(squares[significant])).T)
    return torch.from_numpy(mix).to(v) @ v, torch.from_numpy(mix).to(v) @ hv


def _to_numpy(t: Tensor) -> np.ndarray:
    array: np.ndarray = t.double().cpu().numpy()
    return array


def _angles(
    values: np.ndarray, reach: np.ndarray, intervals: np.ndarray, bound: float, which: Which
) -> np.ndarray:
    """Return the largest angle to each eigenvector, from the gap to all other eigenvalues."""
    rest = ORDER[which](np.array(bound)) - ORDER[which](values)
    degrees = []
    for i, (value, miss) in enumerate(zip(values, reach, strict=True)):
        low, high = np.delete(intervals, i, axis=0).T
        gap = np.maximum(low - value, value - high).min(initial=rest[i])
        degrees.append(np.degrees(np.arcsin(miss / gap)) if miss < gap else 90.0)
    return np.array(degrees)
