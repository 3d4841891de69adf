"""Double backward: Hessian products by a second backward pass, the reference for the tape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparsediag.core.batch_loss import BatchLoss, Matrix

Tensors = Sequence[Tensor]


class DoubleBackward:
    """Double backward: a second backward pass through the graph of the gradient, which is kept."""

    def __init__(self, batch: BatchLoss, weights: Tensors) -> None:
        self.batch = batch
        held: dict[int, int] = {}

        def count(t: Tensor) -> Tensor:
            held[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        self.leaves = [w.detach().requires_grad_() for w in weights]
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            self.slopes = _slopes(batch.loss(batch.outputs(self.leaves)), self.leaves)
        self.nbytes = sum(held.values())
        self.gradient = [s.detach() for s in self.slopes]

    def product(self, directions: Tensors, matrix: Matrix = "hessian") -> list[Tensor]:
        """The matrix times a vector, both as a tensor for each weight.

        Raises:
            ValueError: If the net's outputs do not allow the matrix (see `BatchLoss`).
        """
        if matrix == "hessian":
            return _along(self.slopes, self.leaves, directions)
        with torch.enable_grad():
            outputs = self.batch.outputs(self.leaves)
            self.batch.check_matrix(outputs, matrix)
            z = outputs.detach().requires_grad_()
            u = torch.zeros_like(z, requires_grad=True)
            # J^T u is linear in u, so the transpose of its derivative by u is J
            (change,) = _along(_slopes(outputs, self.leaves, u), [u], directions)
            slope = _slopes(self.batch.loss(z.clone()), [z])
        if matrix == "gauss-newton":
            bent = _along(slope, [z], [change])[0]
        else:
            bent = self.batch.fisher_product(slope[0], change).detach()
        return list(torch.autograd.grad(outputs, self.leaves, bent, materialize_grads=True))


def _slopes(output: Tensor, leaves: Tensors, weight: Tensor | None = None) -> Tensors:
    return torch.autograd.grad(output, leaves, weight, create_graph=True, materialize_grads=True)


def _along(slopes: Tensors, leaves: Tensors, directions: Tensors) -> list[Tensor]:
    """The derivative of slopes . directions by the leaves."""
    pairs = [(s, d) for s, d in zip(slopes, directions, strict=True) if s.requires_grad]
    if not pairs:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return list(
        torch.autograd.grad(
            [s for s, _ in pairs],
            leaves,
            [d for _, d in pairs],
            retain_graph=True,
            materialize_grads=True,
        )
    )
