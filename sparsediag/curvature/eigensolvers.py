"""Eigenpairs of a curvature matrix by Lanczos or by PyHessian, certified the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from sparsediag.curvature import pyhessian as peer
from sparsediag.curvature.certificate import Certificate, certify
from sparsediag.curvature.lanczos import Which, eigenpairs
from sparsediag.curvature.operator import Curvature


@dataclass(frozen=True)
class Solution:
    """Eigenpairs and what is known of them.

    Attributes:
        values: Best first, (top,).
        vectors: Unit rows in live coordinates, (top, size).
        certificate: How far they can be trusted.
        products: Of the search, without those of the certificate.
        rows: Vectors that it held at the end.
        lowest: Smallest Ritz value seen.
    """

    values: np.ndarray
    vectors: Tensor
    certificate: Certificate
    products: int
    rows: int
    lowest: float


def lanczos(
    matrix: Curvature, *, top: int, which: Which, tol: float, seed: int, **options: Any
) -> Solution:
    """Our own; `options` are those of `eigenpairs`."""
    like = matrix.problem.weights
    found = eigenpairs(matrix, like, top=top, which=which, tol=tol, seed=seed, **options)
    judged = certify(matrix, found.values, found.vectors, which=which, tol=tol, found=found)
    lowest = float(min(found.values.min(), found.rest[0].min(initial=np.inf)))
    return Solution(found.values, found.vectors, judged, found.count, found.rows, lowest)


def pyhessian(
    matrix: Curvature,
    *,
    top: int,
    which: Which,
    tol: float,
    seed: int,
    max_matvecs: int | None,
    **options: Any,
) -> Solution:
    """PyHessian's power iteration, for comparison; it has no use for the other options.

    Raises:
        ValueError: If anything but the largest magnitudes of the Hessian is asked for.
    """
    if which == "smallest" or matrix.matrix != "hessian" or matrix.norm != "none":
        raise ValueError(
            "PyHessian finds the largest magnitude of the plain Hessian; use solver='lanczos'"
        )
    if max_matvecs is not None and max_matvecs < 1:
        raise ValueError(f"max_matvecs={max_matvecs}: need 1 for each pair or more")
    values, vectors, products = peer.eigenvalues(
        matrix.problem, top=top, tol=tol, seed=seed, max_matvecs=max_matvecs
    )
    judged = certify(matrix, values, vectors, which="magnitude", tol=tol, seed=seed)
    return Solution(values, vectors, judged, products, top, float(values.min()))


SOLVERS: dict[str, Callable[..., Solution]] = {"lanczos": lanczos, "pyhessian": pyhessian}
