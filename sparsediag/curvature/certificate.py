"""Certificates of eigenpairs: residuals, intervals and what may have been missed.

Nothing is taken on trust: every vector is multiplied once more. For a symmetric H, an eigenvalue
lies within |Hv - value v| of each value, and the angle between v and its eigenvector is at most
asin(residual / gap), the gap being the distance to the rest of the spectrum (Davis & Kahan, SIAM J.
Numer. Anal. 7, 1970; Parlett, The Symmetric Eigenvalue Problem, chapters 4, 11).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.rng import stream
from sparsediag.curvature.krylov import Krylov, Matvec, row_products
from sparsediag.curvature.lanczos import ORDER, Eigenpairs, Probe, Which, probe_complement


@dataclass(frozen=True)
class Certificate:
    """Evidence for and against a set of eigenpairs.

    Attributes:
        residuals: |Hv - value v| / |value| of each pair, recomputed, (top,). A value below the
            square root of the rounding error, relative to H, counts as that large.
        intervals: Low and high end for each value: an eigenvalue lies between them, the noise of
            the products included, (top, 2).
        angles: Degrees at most between each vector and its eigenvector if the probe overlooked
            nothing, 90 where the gap does not tell, (top,).
        orthogonality: Largest |v_i . v_j - [i = j]|.
        copies: Number of vectors that repeat another one.
        noise: Largest distance between two evaluations of the same product, over |value|.
        asymmetry: Largest |u . Hv - v . Hu| seen, over the size of H.
        probe: What was seen of the complement of the vectors.
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
        """Why the pairs are not to be trusted; empty where nothing speaks against them."""
        bad, worst = (~(self.residuals <= self.tol)).sum(), self.residuals.max()
        pairs, rough = len(self.residuals), 10 * self.eps**0.5
        if not np.isfinite(worst):
            return ["the values, the vectors or their products are not finite"]
        said = {
            f"{bad} of {pairs} pairs have a residual above {self.tol:g}, the worst {worst:.1e}": bad
            > 0,
            f"{self.copies} of the vectors repeat another one": self.copies > 0,
            f"the vectors are not orthogonal: {self.orthogonality:.1e}": self.orthogonality > rough,
            f"the same product came out {self.noise:.1e} apart": self.noise > self.tol,
            f"the matrix is not symmetric: {self.asymmetry:.1e}": self.asymmetry
            > max(self.tol, rough),
            "the products ran out before the complement was probed": self.probe.count == 0
            and self.probe.chance > 0,
            f"an eigenvalue as good as {self.probe.best:.6g} was missed": self.probe.missed,
        }
        return [text for text, holds in said.items() if holds]

    def checks(self) -> dict[str, float]:
        """The numbers that hold for all pairs together."""
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
    found: Eigenpairs | None = None,
    seed: int = 0,
) -> Certificate:
    """Judge eigenpairs of the symmetric operator `matvec`.

    Args:
        matvec: Product with a vector, (size,) -> (size,).
        values: (top,).
        vectors: Unit rows, (top, size).
        which: The end of the spectrum that they are said to be of.
        tol: Relative residual up to which a pair has converged.
        found: The search that they come from, which knows what else is in the spectrum and has
            probed the complement; without it the certificate makes a probe of its own.
        seed: Seed of that probe.

    >>> a = torch.diag(torch.tensor([1.0, 5.0, 2.0], dtype=torch.float64))
    >>> said = certify(lambda v: a @ v, np.array([5.0, 1.0]), torch.eye(3).double()[[1, 0]])
    >>> said.doubts
    ['an eigenvalue as good as 2 was missed']
    """
    products = torch.stack([matvec(v) for v in vectors])
    count = len(vectors)
    if not (np.isfinite(values).all() and bool((vectors + products).isfinite().all())):
        return _void(len(values), count, tol)
    if found is None:
        again, count = matvec(vectors[0])[None], count + 1
    else:
        again = found.products
    apart = _host((again - products[: len(again)]).norm(dim=1))
    gram, bilinear = _host(row_products(vectors, vectors)), _host(row_products(vectors, products))
    scaled = torch.from_numpy(values).to(products)[:, None] * vectors
    misses = _host((products - scaled).norm(dim=1))
    eps = float(torch.finfo(vectors.dtype).eps)
    norm = max(float(np.abs(values).max()), found.norm if found else 0, np.finfo(float).tiny)
    order = ORDER[which]
    if found is None:
        krylov = Krylov(matvec, vectors[0], stream("certificate", seed))
        krylov.adopt(*_orthonormal(gram, vectors, products))
        wanted = krylov.ritz(order).values
        probe = probe_complement(krylov, wanted, order, tol, 10 + 2 * len(values))
        # of the rest it is known only that nothing is better than the least of these
        unseen = len(krylov) < krylov.size
        edges = [wanted[-1], -wanted[-1]] if which == "magnitude" else [wanted[-1]]
        rest = np.array([edges, [0.0] * len(edges)]) if unseen else np.zeros((2, 0))
        norm, asymmetry = max(norm, krylov.norm), krylov.asymmetry
        count += probe.count
    else:
        probe, asymmetry, rest = found.probe, found.asymmetry, found.rest
    asymmetry = max(asymmetry, float(np.abs(bilinear - bilinear.T).max()) / norm)
    scale = np.maximum(np.abs(values), eps**0.5 * norm)
    reach = misses + apart.max() + 10 * eps * norm
    copies = len(values) - int(np.linalg.matrix_rank(gram, tol=0.5, hermitian=True))
    return Certificate(
        residuals=misses / scale,
        intervals=np.stack([values - reach, values + reach], axis=1),
        angles=_angles(values, reach, rest),
        orthogonality=float(np.abs(gram - np.eye(len(values))).max()),
        copies=copies,
        noise=float((apart / scale[: len(apart)]).max()),
        asymmetry=asymmetry,
        probe=probe,
        count=count,
        tol=tol,
        eps=eps,
    )


def _void(top: int, count: int, tol: float) -> Certificate:
    """That of pairs with which nothing can be computed."""
    nan = float("nan")
    bounds = np.stack([np.full(top, -np.inf), np.full(top, np.inf)], axis=1)
    residuals, angles = np.full(top, np.inf), np.full(top, 90.0)
    return Certificate(residuals, bounds, angles, nan, 0, nan, nan, Probe(), count, tol, nan)


def _orthonormal(gram: np.ndarray, v: Tensor, hv: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of the space of `v`, and its products."""
    squares, turn = np.linalg.eigh(gram)
    kept = squares > 1e-2
    mix = torch.from_numpy(np.ascontiguousarray((turn[:, kept] / np.sqrt(squares[kept])).T)).to(v)
    return mix @ v, mix @ hv


def _host(t: Tensor) -> np.ndarray:
    array: np.ndarray = t.double().cpu().numpy()
    return array


def _angles(values: np.ndarray, misses: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Largest angle to the eigenvector, from the gap to every other value that is known."""
    others = np.concatenate([values, known[0]])
    reach = np.concatenate([misses, known[1]])
    degrees = []
    for i, (value, miss) in enumerate(zip(values, misses, strict=True)):
        gaps = np.delete(np.abs(others - value) - reach, i)
        gap = gaps.min(initial=np.inf)
        degrees.append(90.0 if miss >= gap else np.degrees(np.arcsin(miss / gap)))
    return np.array(degrees)
