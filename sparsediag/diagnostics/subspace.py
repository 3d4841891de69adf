"""Subspaces that eigenvectors span, and how far two of them agree."""

from __future__ import annotations

import numpy as np

from sparsediag.core.evaluation import full_precision
from sparsediag.diagnostics.spectrum import Spectrum, dense_vectors


@full_precision()
def overlap(a: Spectrum, b: Spectrum) -> np.ndarray:
    """Cosines of the principal angles between the spaces that two spectra's vectors span.

    The largest first, (min(top of a, top of b),): all 1 where one space holds the other, 0 where
    they have nothing in common. Signs, order and clusters do not matter, and masks may differ
    (Bjoerck and Golub, Math. Comp. 27, 1973; of Hessians: Gur-Ari et al., 2018).

    Args:
        a: Eigenvectors of one net.
        b: Those of the same net elsewhere, or of another one of its architecture.

    Raises:
        ValueError: If the spectra are of different nets or different parts of one.

    >>> import torch
    >>> from torch import nn
    >>> from sparsediag import Problem, spectrum
    >>> problem = Problem(nn.Linear(2, 1), [(torch.eye(2), torch.ones(2, 1))], loss=nn.MSELoss())
    >>> overlap(spectrum(problem, top=2), spectrum(problem, top=1)).round(4).tolist()
    [1.0]
    """
    if (a.names, a.sizes) != (b.names, b.sizes):
        raise ValueError("the spectra are of different weights; need two of one net and one part")
    if any(s.source["options"]["norm"] != "none" for s in (a, b)):
        raise ValueError("vectors in units of filter norms cannot be compared; use norm='none'")
    same = np.array_equal(a.alive, b.alive)
    left, right = (s.vectors if same else dense_vectors(s) for s in (a, b))
    left_root, right_root = (np.linalg.cholesky(v @ v.T) for v in (left, right))
    cosines = np.linalg.solve(right_root, np.linalg.solve(left_root, left @ right.T).T)
    return np.linalg.svd(cosines, compute_uv=False).clip(0, 1)
