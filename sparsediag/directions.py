"""Directions: vectors in live coordinates along which a loss is looked at.

Every direction lies in live coordinates, so it is exactly zero off the mask, and it is masked
before it is normalised.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sparsediag.chance import stream
from sparsediag.errors import unknown
from sparsediag.problem import Problem

Norm = Literal["filter", "layer", "none"]


def steps(points: int, span: float) -> np.ndarray:
    """Places on a line from -span to span, (points,); an odd number has exactly 0 in the middle.

    Raises:
        ValueError: If there are fewer than 2 points, or the span is not positive and finite.

    >>> steps(3, 0.5).tolist()
    [-0.5, 0.0, 0.5]
    """
    if points < 2:
        raise ValueError(f"points={points}: need at least 2 along each direction")
    if not 0 < span < np.inf:
        raise ValueError(f"span={span}: need a positive number")
    places: np.ndarray = span * ((2 * np.arange(points) - points + 1) / (points - 1))
    return places


def random(problem: Problem, *, norm: Norm = "filter", seed: int = 0) -> Tensor:
    """A Gaussian direction, (size,), normalised as Li et al. do (NeurIPS 2018, section 4).

    Nets that differ only in their mask or weights get the same Gaussian numbers for one seed.

    Args:
        problem: Gives the coordinates and the weights whose scale the direction takes.
        norm: "filter" gives every filter (row of outputs) the norm of the net's own filter,
            "layer" every layer that of its layer; both leave biases and batch norm at 0, and
            empty filters too. "none" keeps the Gaussian, biases and batch norm included.
        seed: Seed of the Gaussian, drawn on the CPU so that it is the same on every device.

    Raises:
        ValueError: If the norm is unknown.

    >>> net = torch.nn.Linear(4, 2)
    >>> problem = Problem(net, [(torch.ones(1, 4), torch.tensor([0]))])
    >>> d = problem.split(random(problem))["weight"]
    >>> torch.allclose(d.norm(dim=1), net.weight.norm(dim=1))
    True
    """
    if norm not in get_args(Norm):
        raise ValueError(unknown("norm", norm, get_args(Norm)))
    generator = stream("direction", seed)
    gaussian = problem.join(
        {
            name: torch.randn(shape, generator=generator).to(problem.weights)
            for name, shape in problem.live.shapes.items()
        }
    )
    if norm == "none":
        return gaussian
    weights, drawn = problem.split(problem.weights), problem.split(gaussian)
    return problem.join({name: _scaled(drawn[name], weights[name], norm) for name in weights})


def lengths(problem: Problem) -> Tensor:
    """For each live weight the norm of the filter it belongs to, 0 for biases and norms, (size,).

    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    >>> lengths(Problem(net, [(torch.ones(1, 2), torch.tensor([0]))]))
    tensor([5., 5.])
    """
    weights = problem.split(problem.weights)
    return problem.join(
        {
            name: torch.zeros_like(w)
            if w.dim() < 2
            else w.flatten(1).norm(dim=1).view(-1, *[1] * (w.dim() - 1)).expand_as(w)
            for name, w in weights.items()
        }
    )


def _scaled(direction: Tensor, weight: Tensor, norm: Norm) -> Tensor:
    if weight.dim() < 2:
        return torch.zeros_like(weight)
    kept = weight.shape[0] if norm == "filter" else 1
    d, w = direction.reshape(kept, -1), weight.reshape(kept, -1)
    length = d.norm(dim=1, keepdim=True)
    ratio = torch.where(length > 0, w.norm(dim=1, keepdim=True) / length, 0)
    return (d * ratio).view_as(weight)
