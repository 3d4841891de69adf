"""Lines and planes through several networks, whose masks may differ."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import and_, or_
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.errors import unknown_name
from sparsediag.core.evaluation import full_precision
from sparsediag.core.problem import Problem
from sparsediag.surfaces import directions
from sparsediag.surfaces.plane import Plane

Masks = Literal["union", "intersection"]


def common_coordinates(
    problems: Sequence[Problem], *, masks: Masks = "union"
) -> tuple[Problem, list[Tensor]]:
    """Return the first problem in coordinates common to all, and the weights of each in them.

    Args:
        problems: Networks of one architecture; their masks may differ.
        masks: Which weights are coordinates: those live in any network ("union"), or those live in
            all ("intersection"), which sets the others to 0 in every network.

    Raises:
        ValueError: If the architectures differ.

    >>> import torch
    >>> from sparsediag import Mask
    >>> net, batches = torch.nn.Linear(2, 1, bias=False), [(torch.ones(1, 2), torch.ones(1, 1))]
    >>> alive = torch.eye(2, dtype=torch.bool)
    >>> pair = [
    ...     Problem(net, batches, loss=torch.nn.MSELoss(), mask=Mask({"weight": row[None]}))
    ...     for row in alive
    ... ]
    >>> common, weights = common_coordinates(pair)
    >>> [(w != 0).tolist() for w in weights]
    [[True, False], [False, True]]
    """
    first = problems[0]
    for other in problems[1:]:
        if other.live.shapes != first.live.shapes:
            raise ValueError("the networks differ in their weights; need one architecture")
    if masks not in ("union", "intersection"):
        raise ValueError(unknown_name("way to join masks", masks, ("union", "intersection")))
    given_masks = [p.mask for p in problems if p.mask is not None]
    dense = not given_masks or (masks == "union" and len(given_masks) < len(problems))
    mask = None if dense else reduce(or_ if masks == "union" else and_, given_masks)
    if mask != first.mask:
        first = first.view(dense=True).replace(mask=mask)
    return first, [first.join(p.split(p.weights)) for p in problems]


@full_precision()
def interpolate(
    problems: Sequence[Problem], *, names: Sequence[str] = (), masks: Masks = "union"
) -> Plane:
    """Return the line through two networks or the plane through three, the first at 0.

    Lines: Goodfellow et al., ICLR 2015; planes: Garipov et al., NeurIPS 2018, Figure 1.

    Args:
        problems: Two or three networks of one architecture; the loss is that of the first.
        names: Their names.
        masks: If masks differ, the weights that change; see `common_coordinates`.

    Raises:
        ValueError: If there are not two or three, the architectures differ, or they are on one
            line.

    >>> batches = [(torch.eye(2), torch.ones(2, 1))]
    >>> nets = [torch.nn.Linear(2, 1) for _ in range(3)]
    >>> problems = [Problem(net, batches, loss=torch.nn.MSELoss()) for net in nets]
    >>> interpolate(problems).directions.shape
    torch.Size([2, 3])
    """
    if len(problems) not in (2, 3):
        raise ValueError(f"got {len(problems)} networks; need two for a line, three for a plane")
    common, (first, *others) = common_coordinates(problems, masks=masks)
    steps = (torch.stack(others) - first).double()
    if torch.linalg.matrix_rank(steps @ steps.T, rtol=1e-10, hermitian=True) < len(steps):
        raise ValueError("the networks are equal or on one line; need different ones")
    names = list(names) or [f"network {i + 1}" for i in range(len(problems))]
    half, doubts = np.full(len(steps), 0.5), []
    dropped = max(p.size for p in problems) - common.size
    if dropped > 0:
        doubts = [f"weights outside the intersection of the masks were dropped, up to {dropped:,}"]
    return Plane(
        common,
        steps.to(first),
        [f"towards {name}" for name in names[1:]],
        half,
        2 * half,
        unit="step to the other network",
        stops=list(problems),
        names=names,
        doubts=doubts,
    )


@full_precision()
def pca_plane(problems: Sequence[Problem], names: Sequence[str], *, dims: int = 2) -> Plane:
    """Return the plane of the principal components of a training run, centred at its end.

    The directions are unit vectors: the principal components of the differences from the last
    checkpoint (Li et al., NeurIPS 2018, section 7).

    Args:
        problems: The loss of each checkpoint, on the same samples, in order.
        names: Of the checkpoints.
        dims: 1 for a line, 2 for a plane.

    Raises:
        ValueError: If there are too few checkpoints, or they are all equal.

    >>> batches = [(torch.eye(2), torch.ones(2, 1))]
    >>> nets = [torch.nn.Linear(2, 1) for _ in range(4)]
    >>> run = [Problem(net, batches, loss=torch.nn.MSELoss()) for net in nets]
    >>> pca_plane(run, ["1", "2", "3", "4"]).directions.shape
    torch.Size([2, 3])
    """
    if len(problems) <= dims:
        raise ValueError(f"got {len(problems)} checkpoints; need {dims + 1} for {dims} components")
    common, (last, *weights) = common_coordinates([problems[-1], *problems[:-1]])
    steps = torch.stack(weights) - last
    squares, mix = torch.linalg.eigh((steps @ steps.T).double())  # (checkpoints, checkpoints)
    squares, mix = squares.flip(0)[:dims], mix.flip(1).T[:dims]
    total = float(steps.double().square().sum())
    if not squares[0] > 1e-12 * float(last.square().sum()):
        raise ValueError("the checkpoints are all equal; need different ones")
    if not squares[-1] > 1e-12 * squares[0]:  # on one line
        squares, mix = squares[:1], mix[:1]
    shares = (squares / total).tolist()
    rows = directions.orthogonalise(torch.nn.functional.normalize(mix.to(steps) @ steps))
    places = (steps @ rows.T).cpu().numpy()
    low, high = places.min(axis=0, initial=0), places.max(axis=0, initial=0)
    half = 0.6 * (high - low)
    return Plane(
        common,
        rows,
        [f"component {i + 1} ({share:.0%})" for i, share in enumerate(shares)],
        (low + high) / 2,
        half.clip(half.max() / 3),
        unit="distance",
        stops=list(problems),
        names=list(names),
    )
