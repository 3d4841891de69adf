"""Overlap of the subspaces that the eigenvectors of two spectra span."""

from __future__ import annotations

import numpy as np

from sparsediag.core.evaluation import full_precision
from sparsediag.diagnostics.spectrum import Spectrum, dense_vectors


@full_precision()
def overlap(a: Spectrum, b: Spectrum) -> np.ndarray:
    """Compute the cosines of the principal angles between two spaces of eigenvectors.

    All are 1 if one space contains the other, 0 if they are orthogonal. Signs, order and clusters
    of eigenvalues do not matter, and masks may differ (Bjoerck and Golub, Math. Comp. 27, 1973; for
    Hessians: Gur-Ari et al., 2018).

    Args:
        a: Eigenvectors of one network.
        b: Eigenvectors of the same network at other weights, or of another one of its architecture.

    Returns:
        The cosines, the largest first, (min(top of a, top of b),).

    Raises:
        ValueError: If the spectra are of different weights, or in units of filter norms.

    >>> import torch
    >>> from torch import nn
    >>> from sparsediag import Problem, spectrum
    >>> problem = Problem(nn.Linear(2, 1), [(torch.eye(2), torch.ones(2, 1))], loss=nn.MSELoss())
    >>> overlap(spectrum(problem, top=2), spectrum(problem, top=1)).round(4).tolist()
    [1.0]
    """
    if (a.names, a.sizes) != (b.names, b.sizes):
        raise ValueError("the spectra are of different weights; need the same network and params")
    if any(s.source["options"]["norm"] != "none" for s in (a, b)):
        raise ValueError("vectors in units of filter norms cannot be compared; use norm='none'")
    same_mask = np.array_equal(a.alive, b.alive)
    left, right = (s.vectors if same_mask else dense_vectors(s) for s in (a, b))
    # vectors in single precision, or at other dead weights, are only nearly orthonormal
    left_root, right_root = (np.linalg.cholesky(v @ v.T) for v in (left, right))
    cosines = np.linalg.solve(right_root, np.linalg.solve(left_root, left @ right.T).T)
    return np.linalg.svd(cosines, compute_uv=False).clip(0, 1)
