"""Lines and planes through the weights of a network, on which the loss is evaluated.

Other networks are projected onto them by least squares.
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
from sparsediag.core.short_repr import short_repr
from sparsediag.curvature.eigensolvers import solve_lanczos
from sparsediag.curvature.operator import Curvature
from sparsediag.surfaces import directions
from sparsediag.surfaces.directions import Norm

Axes = Literal["random", "gradient", "eigenvectors"]


@dataclass(frozen=True, eq=False)
class Plane:
    """Points `weights + a d1 (+ b d2)`.

    Attributes:
        problem: The loss; its weights are the centre.
        directions: In live coordinates, (dims, size).
        labels: Names of the directions.
        middle: Middle of the interesting range along each direction, (dims,).
        half: Half the width of that range, (dims,).
        unit: Unit of the axes.
        stops: The networks on the plane or near it; none if it belongs to one network.
        names: Names of the stops.
        doubts: Reasons to doubt a picture of it.
        lines: Whether each direction is a separate line, with the same points on each.
        converged: Whether the directions, if they are eigenvectors, converged.
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
    converged: bool = True

    __repr__ = short_repr

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
        """Return the same plane with orthogonal axes of the same lengths."""
        return replace(self, directions=directions.orthogonalise(self.directions))

    def grid(self, points: int, span: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the axes of a grid, (1 or 2, points), and its points, (..., directions).

        Args:
            points: Number along each axis.
            span: Distance each way, in units of `half`.
        """
        unit = directions.grid_axis(points, span)
        axes = np.stack([m + h * unit for m, h in zip(self.middle, self.half, strict=True)])
        if self.lines:
            return axes, np.einsum("p,ij->ipj", axes[0], np.eye(len(self.directions)))
        return axes, np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)

    def curvature(self) -> np.ndarray:
        """Return the exact u.Hu for the unit vector u of each direction, (dims,)."""
        hessian = Curvature(self.problem)
        units = (d / d.norm() for d in self.directions)
        return np.array([float(u @ hessian(u)) for u in units])

    def project(self, weights: Tensor) -> tuple[np.ndarray, float]:
        """Return least-squares coordinates of weights, (dims,), and their distance from the plane.

        Args:
            weights: In the live coordinates, (size,).
        """
        step, d = (weights - self.problem.weights).double(), self.directions.double()
        coordinates = torch.linalg.solve(d @ d.T, d @ step)
        return coordinates.cpu().numpy(), float((step - coordinates @ d).norm())

    def project_stops(self) -> dict[str, Any]:
        """Return names, places, (stops, dims), distances from the plane and losses of the stops."""
        projected = [self.project(self.problem.join(p.split(p.weights))) for p in self.stops]
        return {
            "stops": list(self.names),
            "places": np.array([coordinates for coordinates, _ in projected]).reshape(
                -1, len(self.directions)
            ),
            "away": np.array([distance for _, distance in projected]),
            "losses": np.array([p.value() for p in self.stops]),
        }


@full_precision()
def plane_from_vectors(
    problem: Problem, vectors: Tensor, labels: Sequence[str], **fields: Any
) -> Plane:
    """Return the plane of given vectors, from -1 to 1 along each.

    Args:
        problem: The loss and the centre.
        vectors: In live coordinates, (dims, size).
        labels: Names of the vectors.
        **fields: Other fields of the plane.
    """
    dims = len(vectors)
    return Plane(problem, vectors, list(labels), np.zeros(dims), np.ones(dims), **fields)


@full_precision()
def plane_from_tensors(problem: Problem, tensors: Sequence[Mapping[str, Tensor]]) -> Plane:
    """Return the plane of directions given as tensors by name, without their dead coordinates.

    >>> net = torch.nn.Linear(1, 1)
    >>> problem = Problem(net, [(torch.ones(1, 1), torch.zeros(1, 1))], loss=torch.nn.MSELoss())
    >>> plane_from_tensors(problem, [{"bias": torch.ones(1)}]).directions
    tensor([[0., 1.]])
    """
    converted = [{n: t.to(problem.weights) for n, t in named.items()} for named in tensors]
    vectors = torch.stack([problem.join(named) for named in converted])
    total = sum(float(t.double().square().sum()) for named in converted for t in named.values())
    lost = total - float(vectors.double().square().sum())
    doubts = []
    if lost > 1e-6 * total:
        share = f"{lost / total:.0%} of their square"
        doubts = [f"dead coordinates of the directions were cut, {share}"]
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
    """Return a plane through one network (Li et al., NeurIPS 2018, section 4).

    Args:
        problem: The loss and the centre.
        axes: "random": Gaussian directions, the first by `seed`, the second by the next one.
            "gradient": the gradient and a random one. "eigenvectors": those of the largest
            eigenvalues of the Hessian, as unit vectors.
        dims: 1 for a line, 2 for a plane.
        norm: How the directions are scaled; see `directions.normalise`.
        vectors: Whether biases and batch norm parameters change too; see there.
        lines: Random lines, each with the next seed, instead of one (dims=1).
        seed: Seed of the random directions.

    Raises:
        ValueError: If an option is invalid, or options exclude each other.

    >>> net = torch.nn.Linear(4, 2)
    >>> plane(Problem(net, [(torch.ones(1, 4), torch.tensor([0]))])).labels
    ['random 0', 'random 1']
    """
    if dims not in (1, 2):
        raise ValueError(f"dims={dims}: need 1 (a line) or 2 (a plane)")
    if lines < 1 or (lines > 1 and (dims != 1 or axes != "random")):
        raise ValueError(f"lines={lines}: need 1, or more of them with dims=1 and axes='random'")
    about: dict[str, Any]
    if axes == "eigenvectors":
        hessian = Curvature(problem)
        solution = solve_lanczos(hessian, top=dims, which="largest", tol=1e-3, seed=seed)
        labels = [f"eigenvector {i + 1}" for i in range(dims)]
        doubts = [
            f"eigenvectors: {line}" for line in [*solution.certificate.doubts, *hessian.doubts]
        ]
        about = {"unit": "distance", "doubts": doubts, "converged": not doubts}
        return plane_from_vectors(problem, solution.vectors, labels, **about)
    random = [
        directions.random_direction(problem, norm=norm, vectors=vectors, seed=seed + i)
        for i in range(max(dims, lines))
    ]
    labels = [f"random {seed + i}" for i in range(dims)]
    if axes == "gradient":
        gradient = problem.gradient()
        random[0] = directions.normalise(problem, gradient, norm=norm, vectors=vectors)
        labels[0] = "gradient"
    elif axes != "random":
        raise ValueError(unknown_name("kind of axes", axes, get_args(Axes)))
    unit, doubts = f"{norm} norms", list[str]()
    if norm == "none":
        unit = "length of the direction"
        doubts = ["the axes are not normalised: do not compare networks of different weight norms"]
    labels = [f"{lines} random lines"] if lines > 1 else labels
    about = {"unit": unit, "doubts": doubts, "lines": lines > 1}
    middle, half = np.zeros(dims), np.ones(dims)
    return Plane(problem, torch.stack(random), labels, middle, half, **about)
