"""Plane: a line or a plane through the weights of a net, on which its loss is looked at.

Other nets are found on it by least squares, with what lies outside of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.errors import unknown_name
from sparsediag.core.evaluation import full_precision
from sparsediag.core.problem import Problem
from sparsediag.curvature.eigensolvers import lanczos
from sparsediag.curvature.operator import Curvature
from sparsediag.surfaces import directions
from sparsediag.surfaces.directions import Norm

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
        unit: Of the axes.
        stops: The nets that it goes through or by, none where it belongs to one net.
        names: Of the stops.
        doubts: What is questionable about it.
        lines: Whether the directions are lines of their own, each seen from the same places.
    """

    problem: Problem
    directions: Tensor
    labels: list[str]
    middle: np.ndarray
    half: np.ndarray
    unit: str = "length of the direction"
    stops: Sequence[Problem] = ()
    names: Sequence[str] = ()
    doubts: Sequence[str] = ()
    lines: bool = False

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
        return replace(self, directions=directions.orthogonalise(self.directions))

    def grid(self, points: int, span: float) -> tuple[np.ndarray, np.ndarray]:
        """The axes of a grid, (1 or 2, points), and the places of its points, (..., directions).

        Args:
            points: Along each axis.
            span: How far to go, in units of what is worth a look.
        """
        unit = directions.grid_axis(points, span)
        axes = np.stack([m + h * unit for m, h in zip(self.middle, self.half, strict=True)])
        if self.lines:
            return axes, np.einsum("p,ij->ipj", axes[0], np.eye(len(self.directions)))
        return axes, np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)

    def curvature(self) -> np.ndarray:
        """u.Hu along the unit vector u of each direction, exact."""
        hessian = Curvature(self.problem)
        units = (d / d.norm() for d in self.directions)
        return np.array([float(u @ hessian(u)) for u in units])

    def project(self, weights: Tensor) -> tuple[np.ndarray, float]:
        """Coordinates of weights by least squares, (dims,), and their distance from the plane.

        Args:
            weights: In the live coordinates, (size,).
        """
        away, d = (weights - self.problem.weights).double(), self.directions.double()
        at = torch.linalg.solve(d @ d.T, d @ away)
        return at.cpu().numpy(), float((away - at @ d).norm())

    def project_stops(self) -> dict[str, Any]:
        """The stops' names, places, (stops, dims), distances from the plane and own losses."""
        found = [self.project(self.problem.join(p.split(p.weights))) for p in self.stops]
        return {
            "stops": list(self.names),
            "places": np.array([at for at, _ in found]).reshape(-1, len(self.directions)),
            "away": np.array([away for _, away in found]),
            "losses": np.array([p.value() for p in self.stops]),
        }


@full_precision()
def plane_from_vectors(
    problem: Problem, vectors: Tensor, labels: Sequence[str], **about: Any
) -> Plane:
    """Directions of your own, seen from -1 to 1.

    Args:
        problem: The loss and the centre.
        vectors: In its live coordinates, (dims, size).
        labels: What each of them is.
        **about: Other fields of the plane.
    """
    dims = len(vectors)
    return Plane(problem, vectors, list(labels), np.zeros(dims), np.ones(dims), **about)


@full_precision()
def plane_from_tensors(problem: Problem, tensors: Sequence[Mapping[str, Tensor]]) -> Plane:
    """Directions given as tensors by name in the net's shapes; what would revive a weight is cut.

    >>> net = torch.nn.Linear(1, 1)
    >>> problem = Problem(net, [(torch.ones(1, 1), torch.zeros(1, 1))], loss=torch.nn.MSELoss())
    >>> plane_from_tensors(problem, [{"bias": torch.ones(1)}]).directions
    tensor([[0., 1.]])
    """
    given = [{name: t.to(problem.weights) for name, t in one.items()} for one in tensors]
    vectors = torch.stack([problem.join(one) for one in given])
    whole = sum(float(t.double().square().sum()) for one in given for t in one.values())
    lost = whole - float(vectors.double().square().sum())
    doubts = []
    if lost > 1e-6 * whole:
        doubts = [f"the directions left the mask: {lost / whole:.0%} of their square was cut off"]
    labels = [f"direction {i + 1}" for i in range(len(vectors))]
    return plane_from_vectors(problem, vectors, labels, doubts=doubts)


@full_precision()
def plane(
    problem: Problem,
    axes: Axes = "random",
    *,
    dims: int = 2,
    norm: Norm = "filter",
    vectors: bool | None = None,
    lines: int = 1,
    seed: int = 0,
) -> Plane:
    """A plane through one net (Li et al., NeurIPS 2018, section 4).

    Args:
        problem: The loss and the centre.
        axes: "random": Gaussian directions, the first by `seed`, the second by the next one.
            "gradient": uphill, and a random one. "eigenvectors": the Hessian's top ones, unit
            vectors that keep their own scale.
        dims: 1 for a line, 2 for a plane.
        norm: How the directions are scaled; see `directions.normalise`.
        vectors: Whether biases and batch norm move too; see there.
        lines: Random lines, each with the next seed, instead of one (dims=1).
        seed: Seed of the random directions.

    Raises:
        ValueError: If options cannot be, or do not go together.

    >>> net = torch.nn.Linear(4, 2)
    >>> plane(Problem(net, [(torch.ones(1, 4), torch.tensor([0]))])).labels
    ['random 0', 'random 1']
    """
    if dims not in (1, 2):
        raise ValueError(f"dims={dims}: need 1 (a line) or 2 (a plane)")
    if lines < 1 or (lines > 1 and (dims != 1 or axes != "random")):
        raise ValueError(f"lines={lines}: need 1, or more of them with dims=1 and axes='random'")
    if axes == "eigenvectors":
        found = lanczos(Curvature(problem), top=dims, which="largest", tol=1e-3, seed=seed)
        labels = [f"eigenvector {i + 1}" for i in range(dims)]
        doubts = [f"eigenvectors: {line}" for line in found.certificate.doubts]
        return plane_from_vectors(problem, found.vectors, labels, unit="distance", doubts=doubts)
    drawn = [
        directions.random_direction(problem, norm=norm, vectors=vectors, seed=seed + i)
        for i in range(max(dims, lines))
    ]
    labels = [f"random {seed + i}" for i in range(dims)]
    if axes == "gradient":
        uphill = problem.gradient()
        drawn[0] = directions.normalise(problem, uphill, norm=norm, vectors=vectors)
        labels[0] = "gradient"
    elif axes != "random":
        raise ValueError(unknown_name("kind of axes", axes, get_args(Axes)))
    unit = "length of the direction" if norm == "none" else f"{norm} norms"
    doubts = []
    if norm == "none":
        doubts = ["the axes are not normalised: nets of other weight norms cannot be compared"]
    about: dict[str, Any] = {"labels": labels, "unit": unit, "doubts": doubts}
    if lines > 1:
        about |= {"labels": [f"{lines} random lines"], "lines": True}
    return Plane(problem, torch.stack(drawn), middle=np.zeros(dims), half=np.ones(dims), **about)
