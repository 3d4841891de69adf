"""Directions: vectors in live coordinates along which a loss is looked at.

Every direction lies in live coordinates, so it is exactly zero off the mask, and it is masked
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
    """Places on a line from -span to span, (points,); an odd number has exactly 0 in the middle.

    Raises:
        ValueError: If there are fewer than 2 points, or the span is not positive and finite.

    >>> grid_axis(3, 0.5).tolist()
    [-0.5, 0.0, 0.5]
    """
    if points < 2:
        raise ValueError(f"points={points}: need at least 2 along each direction")
    if not 0 < span < np.inf:
        raise ValueError(f"span={span}: need a positive number")
    places: np.ndarray = span * ((2 * np.arange(points) - points + 1) / (points - 1))
    return places


def random_direction(
    problem: Problem, *, norm: Norm = "filter", vectors: bool | None = None, seed: int = 0
) -> Tensor:
    """A Gaussian direction, (size,), normalised as Li et al. do (NeurIPS 2018, section 4).

    Nets that differ only in their mask or weights get the same Gaussian numbers for one seed.

    Args:
        problem: Gives the coordinates and the weights whose scale the direction takes.
        norm: See `normalise`.
        vectors: Whether biases and batch norm move too; see `normalise`.
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
    """The direction in units of the weights: a step of 1 is as long as they are, (size,).

    Args:
        problem: Whose weights.
        direction: (size,).
        norm: "filter" gives every filter (all weights of an output) the norm of the net's own,
            "layer" every layer that of its layer, "weight" multiplies each number by the size of
            its weight; what is empty stays 0. "none" keeps the direction.
        vectors: Whether tensors of one dimension, biases and batch norm, move too, each scaled as
            a layer; None for only with norm "none".

    Raises:
        ValueError: If the norm is unknown.
    """
    if norm not in get_args(Norm):
        raise ValueError(unknown_name("norm", norm, get_args(Norm)))
    move = norm == "none" if vectors is None else vectors
    weights, drawn = problem.split(problem.weights), problem.split(direction)
    turned = to_oihw(problem.net)
    return problem.join(
        {
            name: torch.zeros_like(w)
            if w.dim() < 2 and not move
            else turned(name, _scaled(turned(name, drawn[name]), turned(name, w), norm))
            for name, w in weights.items()
        }
    )


def orthogonalise(directions: Tensor) -> Tensor:
    """The directions made orthogonal one after another, each as long as it was, (dims, size).

    Raises:
        ValueError: If one lies in the space of those before it.

    >>> orthogonalise(torch.tensor([[2.0, 0.0], [3.0, 4.0]]))
    tensor([[2., 0.],
            [0., 5.]])
    """
    made: list[Tensor] = []
    for d in directions:
        rest = d
        for _ in range(2):
            for u in made:
                rest = rest - (rest @ u) / (u @ u) * u
        if not rest.norm() > 1e-4 * d.norm():
            raise ValueError("a direction lies in the plane of the others; choose another one")
        made.append(rest * (d.norm() / rest.norm()))
    return torch.stack(made)


def _scaled(direction: Tensor, weight: Tensor, norm: Norm) -> Tensor:
    if norm == "none":
        return direction
    if norm == "weight":
        return direction * weight.abs()
    kept = weight.shape[0] if norm == "filter" and weight.dim() > 1 else 1
    d, w = direction.reshape(kept, -1), weight.reshape(kept, -1)
    length = d.norm(dim=1, keepdim=True)
    ratio = torch.where(length > 0, w.norm(dim=1, keepdim=True) / length, 0)
    return (d * ratio).view_as(weight)
