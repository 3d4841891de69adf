"""Hessian products by a second backward pass, the reference that the tape is checked against."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from sparsediag.core.autograd_graph import check_differentiable_again, saved_bytes, zero_nan
from sparsediag.core.batch_loss import BatchLoss, Matrix

Tensors = Sequence[Tensor]


class DoubleBackward:
    """Products by differentiating the gradient, whose graph is kept in memory.

    Attributes:
        gradient: Of the loss, a tensor for each weight.

    Raises:
        NotImplementedError: If torch cannot differentiate the gradient.
    """

    def __init__(self, batch: BatchLoss, weights: Tensors) -> None:
        self.batch, self._is_finite = batch, not batch.has_empty_rows
        self.leaves = [w.detach().requires_grad_() for w in weights]
        with torch.enable_grad():
            self._gradient = batch.gradient(self.leaves, create_graph=True)
        check_differentiable_again(self._gradient)
        self.gradient = [g.detach() for g in self._gradient]

    @cached_property
    def nbytes(self) -> int:
        """Memory that the graph holds."""
        return saved_bytes(self._gradient)

    def product(self, directions: Tensors, matrix: Matrix = "hessian") -> list[Tensor]:
        """Return the matrix times a vector, both as one tensor for each weight.

        Raises:
            ValueError: If the net's outputs do not allow the matrix (see `BatchLoss`).
        """
        if matrix == "hessian":
            product = _vjp(self._gradient, self.leaves, directions)
            if not self._is_finite and _has_nan(product):
                zero_nan(self._gradient)
                product = _vjp(self._gradient, self.leaves, directions)
            self._is_finite = True
            return product
        with torch.enable_grad():
            outputs = self.batch.outputs(self.leaves)
            self.batch.check_matrix(outputs, matrix)
            if not outputs.requires_grad:
                return [torch.zeros_like(leaf) for leaf in self.leaves]
            z = outputs.detach().requires_grad_()
            u = torch.zeros_like(z, requires_grad=True)
            # J^T u is linear in u, so the transpose of its derivative by u is J
            pulled = _differentiable_grad(outputs, self.leaves, u)
            (tangent,) = _vjp(pulled, [u], directions)
            if self.batch.has_empty_rows and _has_nan([tangent]):
                zero_nan(pulled)
                (tangent,) = _vjp(pulled, [u], directions)
            gradient = _differentiable_grad(self.batch.loss(z.clone()), [z])
        if matrix == "gauss-newton":
            (curved,) = _vjp(gradient, [z], [tangent])
        else:
            curved = self.batch.fisher_product(gradient[0], tangent).detach()
        return list(torch.autograd.grad(outputs, self.leaves, curved, materialize_grads=True))


def _has_nan(tensors: Tensors) -> bool:
    return any(bool(t.isnan().any()) for t in tensors)


def _differentiable_grad(output: Tensor, leaves: Tensors, v: Tensor | None = None) -> Tensors:
    if not output.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    parts = torch.autograd.grad(output, leaves, v, create_graph=True, materialize_grads=True)
    check_differentiable_again(parts)
    return parts


def _vjp(outputs: Tensors, leaves: Tensors, vectors: Tensors) -> list[Tensor]:
    """Return the derivative of the sum of `outputs * vectors` by each leaf; the graph stays."""
    pairs = [(o, v) for o, v in zip(outputs, vectors, strict=True) if o.requires_grad]
    if not pairs:
        return [torch.zeros_like(leaf) for leaf in leaves]
    moving, along = zip(*pairs, strict=True)
    products = torch.autograd.grad(moving, leaves, along, retain_graph=True, materialize_grads=True)
    return list(products)
