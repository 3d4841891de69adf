"""Products by automatic differentiation alone: slower than a tape, and its judge.

They share the tape's form: made from a `Pass` and the weights, with `product(directions, matrix)`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp

from sparsediag.record import CannotRecord
from sparsediag.tape import Matrix, Pass

Tensors = Sequence[Tensor]


class Retained:
    """Double backward: a second backward pass through the graph of the gradient, which is kept."""

    def __init__(self, batch: Pass, weights: Tensors) -> None:
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
            ValueError: If the matrix needs other outputs than the net's; see `Pass.check`.
        """
        if matrix == "hessian":
            return _along(self.slopes, self.leaves, directions)
        with torch.enable_grad():
            outputs = self.batch.outputs(self.leaves)
            self.batch.check(outputs, matrix)
            z = outputs.detach().requires_grad_()
            u = torch.zeros_like(z, requires_grad=True)
            # J^T u is linear in u, so the transpose of its derivative by u is J
            (change,) = _along(_slopes(outputs, self.leaves, u), [u], directions)
            slope = _slopes(self.batch.loss(z.clone()), [z])
        if matrix == "gauss-newton":
            bent = _along(slope, [z], [change])[0]
        else:
            bent = self.batch.per_sample(slope[0], change).detach()
        return list(torch.autograd.grad(outputs, self.leaves, bent, materialize_grads=True))


class Forward:
    """Forward over reverse: the derivative of the gradient along a vector, and nothing kept."""

    nbytes = 0

    def __init__(self, batch: Pass, weights: Tensors) -> None:
        _forward_mode()
        self.weights = tuple(w.detach() for w in weights)
        self.slope = grad(lambda w: batch.loss(batch.outputs(w)))
        self.gradient = list(self.slope(self.weights))

    def product(self, directions: Tensors, matrix: Matrix = "hessian") -> list[Tensor]:
        """The Hessian times a vector, both as a tensor for each weight."""
        if matrix != "hessian":
            raise CannotRecord("forward over reverse is for the Hessian only")
        return list(self._along(tuple(directions)))

    def _along(self, directions: tuple[Tensor, ...]) -> Any:
        return jvp(self.slope, (self.weights,), (directions,))[1]


class Compiled(Forward):
    """The same, compiled: a minute or more to set up, for many products of many batches."""

    def __init__(self, batch: Pass, weights: Tensors) -> None:
        super().__init__(batch, weights)
        self._compiled: Callable[..., Any] = torch.compile(super()._along)

    def _along(self, directions: tuple[Tensor, ...]) -> Any:
        return self._compiled(directions)


@cache
def _forward_mode() -> None:
    """Let torch set forward mode up, which it does at the first call, with warnings about itself.

    No code of the caller's runs meanwhile, so no warning about that is lost.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jvp(torch.neg, (torch.zeros(()),), (torch.zeros(()),))


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
