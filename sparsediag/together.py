"""Together: several nets of one architecture in the same live coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import and_, or_
from typing import Literal

from torch import Tensor

from sparsediag.errors import unknown
from sparsediag.problem import Problem

Masks = Literal["union", "intersection"]


def together(
    problems: Sequence[Problem], *, masks: Masks = "union"
) -> tuple[Problem, list[Tensor]]:
    """The loss of the first in coordinates that fit all, and the weights of each in them.

    Args:
        problems: Of one architecture; their masks may differ.
        masks: Which weights move: those live in any of the nets, or only those live in all, which
            drops the others from every net.

    Raises:
        ValueError: If the nets have other weights.

    >>> import torch
    >>> from sparsediag import Mask
    >>> net, batches = torch.nn.Linear(2, 1, bias=False), [(torch.ones(1, 2), torch.ones(1, 1))]
    >>> alive = torch.eye(2, dtype=torch.bool)
    >>> pair = [
    ...     Problem(net, batches, loss=torch.nn.MSELoss(), mask=Mask({"weight": row[None]}))
    ...     for row in alive
    ... ]
    >>> common, weights = together(pair)
    >>> [(w != 0).tolist() for w in weights]
    [[True, False], [False, True]]
    """
    first = problems[0]
    for other in problems[1:]:
        if other.live.shapes != first.live.shapes:
            raise ValueError("the nets have other weights; need two or more of one architecture")
    if masks not in ("union", "intersection"):
        raise ValueError(unknown("way to join masks", masks, ("union", "intersection")))
    held = [p.mask for p in problems if p.mask is not None]
    join = or_ if masks == "union" else and_
    mask = (
        None if not held or (masks == "union" and len(held) < len(problems)) else reduce(join, held)
    )
    if mask != first.mask:
        first = replace(first.view(dense=True), mask=mask)
    return first, [first.join(p.split(p.weights)) for p in problems]
