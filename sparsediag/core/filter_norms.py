"""Filter norms: the scale of each weight, for curvature that rescaling a layer does not change."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsediag.core.problem import Problem
from sparsediag.core.prunable import to_oihw


def filter_norms(problem: Problem) -> Tensor:
    """Return for each live weight the norm of its filter; 0 for biases and norm layers, (size,).

    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    >>> pair = (torch.ones(1, 2), torch.zeros(1, 1))
    >>> filter_norms(Problem(net, [pair], loss=torch.nn.MSELoss()))
    tensor([5., 5.])
    """
    permute = to_oihw(problem.net)
    norms = {name: torch.zeros_like(w) for name, w in problem.split(problem.weights).items()}
    for name, weight in problem.split(problem.weights).items():
        if weight.dim() > 1:
            filters = permute(name, weight)
            dims = tuple(range(1, weight.dim()))
            norm: Tensor = torch.linalg.vector_norm(filters, dim=dims, keepdim=True)
            norms[name] = permute(name, norm.expand_as(filters))
    return problem.join(norms)
