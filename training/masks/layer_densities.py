"""The number of weights that each layer keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.mask import Mask


def uniform(shapes: Mapping[str, torch.Size], density: float) -> dict[str, float]:
    """Return the same density for every layer."""
    return dict.fromkeys(shapes, density)


def erk(shapes: Mapping[str, torch.Size], density: float) -> dict[str, float]:
    """Return Erdos-Renyi-Kernel densities, in proportion to sum(shape) / prod(shape).

    A layer that would need more than all of its weights is dense, and the others share the rest
    (Mocanu et al., 2018; Evci et al., RigL, ICML 2020).

    >>> mlp = {str(i): torch.Size(s) for i, s in enumerate([(100, 784), (100, 100), (10, 100)])}
    >>> [round(d, 4) for d in erk(mlp, 0.1).values()]
    [0.0844, 0.1497, 0.8236]
    """
    size = {name: shape.numel() for name, shape in shapes.items()}
    raw = {name: sum(shape) / shape.numel() for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        sparse = [name for name in shapes if name not in dense]
        left = density * sum(size.values()) - sum(size[name] for name in dense)
        factor = left / sum(raw[name] * size[name] for name in sparse)
        largest = max(raw[name] for name in sparse)
        if factor * largest <= 1:
            return {name: 1.0 if name in dense else factor * raw[name] for name in shapes}
        dense |= {name for name in sparse if raw[name] == largest}


def round_counts(
    shapes: Mapping[str, torch.Size], densities: Mapping[str, float]
) -> dict[str, int]:
    """Return integer numbers of weights by largest remainder, so that their sum is exact.

    >>> round_counts({"a": torch.Size([3]), "b": torch.Size([3])}, {"a": 0.5, "b": 0.5})
    {'a': 2, 'b': 1}
    """
    exact = {name: densities[name] * shape.numel() for name, shape in shapes.items()}
    counts = {name: int(np.floor(n + 1e-9)) for name, n in exact.items()}
    missing = round(sum(exact.values())) - sum(counts.values())
    for name in sorted(exact, key=lambda n: counts[n] - exact[n])[:missing]:
        counts[name] += 1
    return counts


def top_per_layer(scores: Mapping[str, Tensor], counts: Mapping[str, int]) -> Mask:
    """Keep the given number of highest scores in each layer; ties go to the earlier weight."""
    masks = {}
    for name, score in scores.items():
        if counts[name]:
            ranked = score.nan_to_num(math.inf, math.inf, -math.inf)  # of a training that diverged
            masks[name] = Mask.top({name: ranked}, counts[name] / score.numel())[name]
        else:
            masks[name] = torch.zeros_like(score, dtype=torch.bool)
    return Mask(masks)
