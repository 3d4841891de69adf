"""Hessian products by a second backward pass, the reference that the tape is checked against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparsediag.core.batch_loss import BatchLoss, Matrix
from sparsediag.core.losses import graph_nodes

Tensors = Sequence[Tensor]


def storage_bytes(t: Tensor) -> dict[int, int]:
    """Return the address of a tensor's memory and its bytes; nothing if it has none of its own.

    Sparse tensors, constants that are all zero, and those that `torch.func` wraps have none.
    """
    try:
        storage = t.untyped_storage()
        return {storage.data_ptr(): storage.nbytes()}
    except (RuntimeError, NotImplementedError):
        return {}


class DoubleBackward:
    """Products by differentiating the gradient, whose graph is kept in memory.

    Attributes:
        gradient: Of the loss, a tensor for each weight.
        nbytes: Memory that the graph holds.

    Raises:
        RuntimeError: If the gradient ends in a function that is marked @once_differentiable, whose
            part of the products would be 0 without a word.
    """

    def __init__(self, batch: BatchLoss, weights: Tensors) -> None:
        self.batch = batch
        saved: dict[int, int] = {}  # address -> bytes

        def count(t: Tensor) -> Tensor:
            saved.update(storage_bytes(t))
            return t

        self.leaves = [w.detach().requires_grad_() for w in weights]
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            _, loss = batch.evaluate(self.leaves)
            self._gradient = _differentiable_grad(loss, self.leaves)
        if any(node.name() == "torch::autograd::Error" for node in graph_nodes(self._gradient)):
            raise RuntimeError("a function is marked @once_differentiable")
        self.nbytes = sum(saved.values())
        self.gradient = [g.detach() for g in self._gradient]

    def product(self, directions: Tensors, matrix: Matrix = "hessian") -> list[Tensor]:
        """Return the matrix times a vector, both as one tensor for each weight.

        Raises:
            ValueError: If the net's outputs do not allow the matrix (see `BatchLoss`).
        """
        if matrix == "hessian":
            return _vjp(self._gradient, self.leaves, directions)
        with torch.enable_grad():
            outputs = self.batch.outputs(self.leaves)
            self.batch.check_matrix(outputs, matrix)
            z = outputs.detach().requires_grad_()
            u = torch.zeros_like(z, requires_grad=True)
            # J^T u is linear in u, so the transpose of its derivative by u is J
            (tangent,) = _vjp(_differentiable_grad(outputs, self.leaves, u), [u], directions)
            gradient = _differentiable_grad(self.batch.loss(z.clone()), [z])
        if matrix == "gauss-newton":
            (product,) = _vjp(gradient, [z], [tangent])
        else:
            product = self.batch.fisher_product(gradient[0], tangent).detach()
        return list(torch.autograd.grad(outputs, self.leaves, product, materialize_grads=True))


def _differentiable_grad(output: Tensor, leaves: Tensors, v: Tensor | None = None) -> Tensors:
    return torch.autograd.grad(output, leaves, v, create_graph=True, materialize_grads=True)


def _vjp(outputs: Tensors, leaves: Tensors, vectors: Tensors) -> list[Tensor]:
    """Return the derivative of the sum of `outputs * vectors` by each leaf; the graph stays."""
    pairs = [(o, v) for o, v in zip(outputs, vectors, strict=True) if o.requires_grad]
    if not pairs:
        return [torch.zeros_like(leaf) for leaf in leaves]
    moving, along = zip(*pairs, strict=True)
    products = torch.autograd.grad(moving, leaves, along, retain_graph=True, materialize_grads=True)
    return list(products)
