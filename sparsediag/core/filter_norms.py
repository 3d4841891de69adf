"""Filter norms: the scale of each weight, for curvature that a change of scale leaves alone."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsediag.core.problem import Problem
from sparsediag.core.prunable import to_oihw


def filter_norms(problem: Problem) -> Tensor:
    """For each live weight the norm of the filter it belongs to, 0 for biases and norms, (size,).

    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    >>> pair = (torch.ones(1, 2), torch.zeros(1, 1))
    >>> filter_norms(Problem(net, [pair], loss=torch.nn.MSELoss()))
    tensor([5., 5.])
    """
    weights, turned = problem.split(problem.weights), to_oihw(problem.net)
    return problem.join(
        {
            name: torch.zeros_like(w) if w.dim() < 2 else turned(name, _filters(turned(name, w)))
            for name, w in weights.items()
        }
    )


def _filters(weight: Tensor) -> Tensor:
    """The norm of each filter in all its places."""
    norms: Tensor = weight.flatten(1).norm(dim=1)
    return norms.view(-1, *[1] * (weight.dim() - 1)).expand_as(weight)
