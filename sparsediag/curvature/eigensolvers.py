"""Eigenpairs of a curvature matrix by Lanczos or by PyHessian, with the same certificate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from sparsediag.core.short_repr import short_repr
from sparsediag.curvature import pyhessian
from sparsediag.curvature.certificate import Certificate, certify
from sparsediag.curvature.lanczos import Which, eigenpairs
from sparsediag.curvature.operator import Curvature

Check = Literal["combined", "each"]


@dataclass(frozen=True)
class Solution:
    """Certified eigenpairs.

    Attributes:
        values: Best first, (top,).
        vectors: Unit rows in live coordinates, (top, size).
        certificate: How reliable they are.
        products: Products of the search, without those of the certificate.
        basis_size: Vectors that the search held at the end.
        lowest: Smallest Ritz value seen.
    """

    values: np.ndarray
    vectors: Tensor
    certificate: Certificate
    products: int
    basis_size: int
    lowest: float

    __repr__ = short_repr


def solve_lanczos(
    matrix: Curvature,
    *,
    top: int,
    which: Which,
    tol: float,
    seed: int,
    check: Check = "combined",
    **options: Any,
) -> Solution:
    """Find eigenpairs by block Lanczos; `options` are those of `eigenpairs`."""
    like = matrix.problem.weights
    pairs = eigenpairs(matrix, like, top=top, which=which, tol=tol, seed=seed, **options)
    values, vectors, count = pairs.values, pairs.vectors, pairs.num_matvecs
    certificate = certify(
        matrix, values, vectors, which=which, tol=tol, search=pairs, each=check == "each", seed=seed
    )
    return Solution(values, vectors, certificate, count, pairs.basis_size, pairs.lowest)


def solve_pyhessian(
    matrix: Curvature,
    *,
    top: int,
    which: Which,
    tol: float,
    seed: int,
    max_matvecs: int | None,
    **options: Any,
) -> Solution:
    """Find eigenpairs by PyHessian's power iteration, which ignores the other options.

    Raises:
        ValueError: If other than the largest magnitudes of the Hessian are asked for.
    """
    if which == "smallest" or matrix.matrix != "hessian" or matrix.norm != "none":
        raise ValueError(
            "PyHessian finds the largest magnitude of the plain Hessian; use solver='lanczos'"
        )
    if max_matvecs is not None and max_matvecs < 1:
        raise ValueError(f"max_matvecs={max_matvecs}: need 1 for each pair or more")
    values, vectors, products = pyhessian.eigenpairs(
        matrix.problem, top=top, tol=tol, seed=seed, max_matvecs=max_matvecs
    )
    certificate = certify(matrix, values, vectors, which="magnitude", tol=tol, seed=seed)
    return Solution(values, vectors, certificate, products, top, float(values.min()))


SOLVERS: dict[str, Callable[..., Solution]] = {
    "lanczos": solve_lanczos,
    "pyhessian": solve_pyhessian,
}
