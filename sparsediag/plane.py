"""Plane: a line or a plane through the weights of a net, on which its loss is looked at.

Weights of other nets are found on it by least squares, with what lies outside of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sparsediag import directions
from sparsediag.curvature import Curvature
from sparsediag.directions import Norm
from sparsediag.errors import unknown
from sparsediag.problem import Problem
from sparsediag.solvers import lanczos
from sparsediag.together import together

Axes = Literal["random", "gradient", "eigenvectors"]


@dataclass(frozen=True, eq=False)
class Plane:
    """Points `weights + a d1 (+ b d2)`.

    Attributes:
        problem: The loss; its weights are the centre.
        directions: In its live coordinates, (dims, size).
        labels: What each direction is.
        middle: Of what is worth a look along each direction, (dims,).
        half: How far that goes each way, (dims,).
        runs: Whether it goes from one net to another, so that batch norm must be measured anew.
    """

    problem: Problem
    directions: Tensor
    labels: list[str]
    middle: np.ndarray
    half: np.ndarray
    runs: bool = False

    def __post_init__(self) -> None:
        if not self.directions.norm(dim=1).all():
            raise ValueError(
                "a direction is zero everywhere: no layer with two dimensions has live weights. "
                "Use norm='none' to move biases and norms too."
            )

    @property
    def gram(self) -> np.ndarray:
        """Cosines between the directions, (dims, dims)."""
        units = (self.directions / self.directions.norm(dim=1, keepdim=True)).double()
        cosines: np.ndarray = (units @ units.T).cpu().numpy()
        return cosines

    def orthogonal(self) -> Plane:
        """The same plane with axes that stand upright on each other, as long as they were."""
        return replace(self, directions=directions.orthogonal(self.directions))

    def places(self, points: int, span: float) -> np.ndarray:
        """Coordinates of a grid, (dims, points): `span` times what is worth a look."""
        unit = directions.steps(points, span)
        return np.stack([m + h * unit for m, h in zip(self.middle, self.half, strict=True)])

    def project(self, weights: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates of weights by least squares, (n, dims), and their distance from it, (n,).

        Args:
            weights: In the live coordinates, (n, size).
        """
        away = (weights - self.problem.weights).double()
        d = self.directions.double()
        at = torch.linalg.solve(d @ d.T, d @ away.T).T
        return at.cpu().numpy(), (away - at @ d).norm(dim=1).cpu().numpy()


def along(problem: Problem, vectors: Tensor, labels: Sequence[str]) -> Plane:
    """The plane of directions of your own, (dims, size), seen from -1 to 1."""
    dims = len(vectors)
    if dims not in (1, 2):
        raise ValueError(f"dims={dims}: need 1 (a line) or 2 (a plane)")
    return Plane(problem, vectors, list(labels), np.zeros(dims), np.ones(dims))


def plane(
    problem: Problem,
    axes: Axes = "random",
    *,
    dims: int = 2,
    norm: Norm = "filter",
    vectors: bool | None = None,
    seed: int = 0,
) -> Plane:
    """A plane through one net.

    Args:
        problem: The loss and the centre.
        axes: "random": Gaussian directions, the first by `seed`, the second by the next one.
            "gradient": uphill, and a random one. "eigenvectors": the Hessian's top ones, unit
            vectors that keep their own scale.
        dims: 1 for a line, 2 for a plane.
        norm: How the directions are scaled; see `directions.normalised`.
        vectors: Whether biases and batch norm move too; see there.
        seed: Seed of the random directions.

    >>> net = torch.nn.Linear(4, 2)
    >>> plane(Problem(net, [(torch.ones(1, 4), torch.tensor([0]))])).labels
    ['random 0', 'random 1']
    """
    if dims not in (1, 2):
        raise ValueError(f"dims={dims}: need 1 (a line) or 2 (a plane)")
    if axes == "eigenvectors":
        found = lanczos(Curvature(problem), top=dims, which="largest", tol=1e-3, seed=seed)
        labels = [f"eigenvector {i + 1}" for i in range(dims)]
        return along(problem, found.vectors, labels)
    drawn = [
        directions.random(problem, norm=norm, vectors=vectors, seed=seed + i) for i in range(dims)
    ]
    labels = [f"random {seed + i}" for i in range(dims)]
    if axes == "gradient":
        uphill = problem.gradient()
        drawn[0] = directions.normalised(problem, uphill, norm=norm, vectors=vectors)
        labels[0] = "gradient"
    elif axes != "random":
        raise ValueError(unknown("kind of axes", axes, ("random", "gradient", "eigenvectors")))
    return along(problem, torch.stack(drawn), labels)


def through(
    problems: Sequence[Problem], *, masks: Literal["union", "intersection"] = "union"
) -> Plane:
    """The line through two nets, or the plane through three: the first at 0, the others at 1.

    Args:
        problems: Two or three, of one architecture; the loss is that of the first.
        masks: Where masks differ, the weights that move: those live in any of the nets, or only
            those live in all, which drops the others from the nets.
    """
    if len(problems) not in (2, 3):
        raise ValueError(f"{len(problems)} nets came; need two for a line, three for a plane")
    common, weights = together(problems, masks=masks)
    steps = torch.stack([w - weights[0] for w in weights[1:]])
    names = ["the second net", "the third net"][: len(steps)]
    half = np.full(len(steps), 0.5)
    return Plane(common, steps, [f"towards {n}" for n in names], half, 2 * half, runs=True)


def principal(problems: Sequence[Problem], *, dims: int = 2) -> Plane:
    """The plane in which the checkpoints of a run move most, the last one at its centre.

    The directions are unit vectors: the principal components of the ways from the last checkpoint.
    """
    if len(problems) <= dims:
        raise ValueError(f"{len(problems)} checkpoints came; need {dims + 1} for {dims} components")
    common, (last, *weights) = together([problems[-1], *problems[:-1]])
    away = (torch.stack(weights) - last).double()
    _, sizes, rows = torch.linalg.svd(away, full_matrices=False)
    shares = (sizes.square() / sizes.square().sum()).tolist()
    at = (away @ rows[:dims].T).cpu().numpy()
    low, high = at.min(axis=0, initial=0), at.max(axis=0, initial=0)
    half = 0.6 * (high - low)
    return Plane(
        common,
        rows[:dims].to(last),
        [f"component {i + 1} ({shares[i]:.0%})" for i in range(dims)],
        (low + high) / 2,
        half.clip(half.max() / 5),
        runs=True,
    )
