"""Directions in live coordinates along which a loss is evaluated.

A direction has live coordinates only, so it is exactly zero at dead weights, and it is masked
before it is normalised.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.errors import unknown_name
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import to_oihw
from sparsediag.core.rng import stream

Norm = Literal["filter", "layer", "weight", "none"]


def grid_axis(points: int, span: float) -> np.ndarray:
    """Return coordinates from -span to span, (points,), with an exact 0 if the number is odd.

    Raises:
        ValueError: If there are fewer than 2 points, or the span is not positive and finite.

    >>> grid_axis(3, 0.5).tolist()
    [-0.5, 0.0, 0.5]
    """
    if points < 2:
        raise ValueError(f"points={points}: need at least 2 along each direction")
    if not 0 < span < np.inf:
        raise ValueError(f"span={span}: need a positive number")
    coordinates: np.ndarray = span * ((2 * np.arange(points) - points + 1) / (points - 1))
    return coordinates


def random_direction(
    problem: Problem, *, norm: Norm = "filter", vectors: bool | None = None, seed: int = 0
) -> Tensor:
    """Return a Gaussian direction, (size,), normalised as in Li et al., NeurIPS 2018, section 4.

    Networks that differ only in mask or weights get the same Gaussian numbers for a seed.

    Args:
        problem: The coordinates, and the weights for the scale of the direction.
        norm: See `normalise`.
        vectors: Whether biases and batch norm parameters change too; see `normalise`.
        seed: Seed of the Gaussian, drawn on the CPU so that it is the same on every device.

    Raises:
        ValueError: If the norm is unknown.

    >>> net = torch.nn.Linear(4, 2)
    >>> problem = Problem(net, [(torch.ones(1, 4), torch.tensor([0]))])
    >>> d = problem.split(random_direction(problem))["weight"]
    >>> torch.allclose(d.norm(dim=1), net.weight.norm(dim=1))
    True
    """
    generator = stream("direction", seed)
    gaussian = problem.join(
        {
            name: torch.randn(shape, generator=generator).to(problem.weights)
            for name, shape in problem.live.shapes.items()
        }
    )
    return normalise(problem, gaussian, norm=norm, vectors=vectors)


def normalise(
    problem: Problem, direction: Tensor, *, norm: Norm = "filter", vectors: bool | None = None
) -> Tensor:
    """Return the direction in units of the weights, (size,).

    Args:
        problem: The weights.
        direction: (size,).
        norm: "filter" gives every filter (all weights of an output) the norm of the network's
            filter, "layer" every layer the norm of the network's layer, and "weight" multiplies
            each number by the magnitude of its weight; "none" keeps the direction.
        vectors: Whether tensors with one dimension, biases and batch norm, change too, each scaled
            as a layer (default: with norm "none" only).

    Raises:
        ValueError: If the norm is unknown.
    """
    if norm not in get_args(Norm):
        raise ValueError(unknown_name("norm", norm, get_args(Norm)))
    change = norm == "none" if vectors is None else vectors
    weights, parts = problem.split(problem.weights), problem.split(direction)
    oihw = to_oihw(problem.net)
    return problem.join(
        {
            name: torch.zeros_like(w)
            if w.dim() < 2 and not change
            else oihw(name, _scale(oihw(name, parts[name]), oihw(name, w), norm))
            for name, w in weights.items()
        }
    )


def orthogonalise(directions: Tensor) -> Tensor:
    """Return the directions made orthogonal in order, with their lengths kept, (dims, size).

    Raises:
        ValueError: If one is in the span of those before it.

    >>> orthogonalise(torch.tensor([[2.0, 0.0], [3.0, 4.0]]))
    tensor([[2., 0.],
            [0., 5.]])
    """
    result: list[Tensor] = []
    for d in directions:
        rest = d
        for _ in range(2):
            for u in result:
                rest = rest - (rest @ u) / (u @ u) * u
        if not rest.norm() > 1e-4 * d.norm():
            raise ValueError("a direction is a combination of the others; choose another one")
        result.append(rest * (d.norm() / rest.norm()))
    return torch.stack(result)


def _scale(direction: Tensor, weight: Tensor, norm: Norm) -> Tensor:
    if norm == "none":
        return direction
    if norm == "weight":
        return direction * weight.abs()
    by_filter = norm == "filter" and weight.dim() > 1
    d, w = (t.flatten(1) if by_filter else t.reshape(1, -1) for t in (direction, weight))
    length = d.norm(dim=1, keepdim=True)
    ratio = torch.where(length > 0, w.norm(dim=1, keepdim=True) / length, 0)
    return (d * ratio).view_as(weight)
