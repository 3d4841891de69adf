"""Stochastic Lanczos quadrature: the density of a spectrum from products with vectors.

The Ritz values of some Lanczos steps from a random probe, and the squared first components of their
vectors, are nodes and weights of a Gauss quadrature of the spectral density. The mean over probes
is unbiased up to the polynomial degree, and their spread gives its error (Lin, Saad & Yang, SIAM
Review 58, 2016; Ghorbani, Krishnan & Xiao, ICML 2019).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from sparsediag.core.evaluation import full_precision
from sparsediag.core.rng import stream
from sparsediag.curvature.krylov import Krylov, Matvec


@full_precision()
def quadrature(
    matvec: Matvec,
    like: Tensor,
    *,
    probes: int = 8,
    steps: int = 40,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of the density, (probes, steps) each; a row of weights sums to 1.

    If a Krylov space is exhausted before the last step, the rest of its row has weight 0.

    Args:
        matvec: Product with a vector, (size,) -> (size,).
        like: Any vector of the operator's size, dtype and device.
        probes: Number of random probes.
        steps: Products per probe.
        seed: Seed of the probes (the same on every device).
        progress: Called as `progress(products, all)`.

    Raises:
        ValueError: If there are fewer than 2 probes, or no step.

    >>> import torch
    >>> a = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    >>> nodes, weights = quadrature(lambda v: a @ v, a[0], probes=2)
    >>> bool(np.allclose(nodes[:, :3], [1, 2, 3])), weights.shape
    (True, (2, 40))
    """
    if probes < 2 or steps < 1:
        raise ValueError(f"probes={probes}, steps={steps}: need 2 probes and 1 step or more")
    nodes, weights = np.zeros((probes, steps)), np.zeros((probes, steps))
    generator = stream("density", seed)
    for i in range(probes):
        krylov = Krylov(matvec, like, generator)
        directions: Tensor | None = krylov.random(1)
        for j in range(min(steps, like.numel())):
            if directions is None:
                break
            krylov.grow(directions, passes=0)
            directions = krylov.next_directions()
            if progress:
                progress(i * steps + j + 1, probes * steps)
        values, coordinates = np.linalg.eigh(krylov.projected)
        nodes[i, : len(values)], weights[i, : len(values)] = values, coordinates[0] ** 2
    return nodes, weights


@full_precision()
def density(
    nodes: np.ndarray, weights: np.ndarray, points: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the density at `points`, smoothed by a Gaussian of standard deviation `width`.

    Returns:
        Mean over the probes and its standard error, (len(points),) each.

    >>> nodes, weights = np.zeros((2, 1)), np.ones((2, 1))
    >>> mean, error = density(nodes, weights, np.array([0.0]), 1.0)
    >>> float(mean[0].round(4)), float(error[0])
    (0.3989, 0.0)
    """
    kernel = np.exp(-(((points[:, None, None] - nodes) / width) ** 2) / 2)
    each = (weights * kernel).sum(2) / (width * np.sqrt(2 * np.pi))
    error: np.ndarray = each.std(1, ddof=1) / np.sqrt(each.shape[1])
    return each.mean(1), error
