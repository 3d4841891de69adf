"""Forward over reverse: Hessian products as the derivative of the gradient along a vector."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp

from sparsediag.core.batch_loss import BatchLoss, Matrix
from sparsediag.curvature.recorder import CannotRecord

Tensors = Sequence[Tensor]


class Forward:
    """Forward over reverse: the derivative of the gradient along a vector, and nothing kept."""

    nbytes = 0

    def __init__(self, batch: BatchLoss, weights: Tensors) -> None:
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

    def __init__(self, batch: BatchLoss, weights: Tensors) -> None:
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
