"""The loss of one batch as a function of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sparsediag.core.rng import stream

Matrix = Literal["hessian", "gauss-newton", "fisher"]


@dataclass(frozen=True)
class BatchLoss:
    """Two functions, weights -> outputs and outputs -> loss.

    Attributes:
        outputs: Maps the weights, a list of tensors, to the outputs.
        loss: Maps the outputs, and the weights if it reads them, to the loss.
        samples: Number of samples in the batch.
        summed: True if the loss is a sum over samples, not a mean.
        reads_weights: True if the loss depends on the weights directly, as weight decay does.
        has_empty_rows: True if the mask leaves no weight in a row of one of the weights.
    """

    outputs: Callable[[Sequence[Tensor]], Any]
    loss: Callable[..., Tensor]
    samples: int
    reads_weights: bool = False
    summed: bool = False
    has_empty_rows: bool = False

    def evaluate(self, weights: Sequence[Tensor]) -> tuple[Any, Tensor]:
        """Return the outputs and the loss."""
        outputs = self.outputs(weights)
        return outputs, self.loss(outputs, *[weights] * self.reads_weights)

    def gradient(self, leaves: Sequence[Tensor], *, create_graph: bool = False) -> Sequence[Tensor]:
        """Return the gradient of the loss by the weights, 0 for those that it does not depend on.

        Args:
            leaves: The weights; they require a gradient.
            create_graph: Whether the gradient is to be differentiated again.

        Raises:
            ValueError: If the loss depends on the weights, but autograd does not see it.
        """
        _, loss = self.evaluate(leaves)
        if loss.requires_grad:
            return torch.autograd.grad(
                loss, leaves, create_graph=create_graph, materialize_grads=True
            )
        generator = stream("a step off the weights")
        noise = [torch.randn(w.shape, generator=generator).to(w) for w in leaves]
        _, elsewhere = self.evaluate(
            [w.detach() * (1 + n) for w, n in zip(leaves, noise, strict=True)]
        )
        if not torch.equal(loss, elsewhere):
            raise ValueError(
                "the loss changes with the weights but has no gradient: the net or the loss cuts "
                "it off, by torch.no_grad, detach, argmax, or torch.autograd.grad without "
                "create_graph=True (in evaluation mode too)"
            )
        return [torch.zeros_like(w) for w in leaves]

    def check_matrix(self, outputs: Any, matrix: Matrix) -> None:
        """Check that the matrix is defined for these outputs."""
        if matrix != "hessian" and self.reads_weights:
            raise ValueError(
                f"the loss reads the net's weights; matrix='{matrix}' needs a loss of outputs and "
                "targets only, so leave out weight decay and the like, or use matrix='hessian'"
            )
        if matrix != "hessian" and not isinstance(outputs, Tensor):
            kind = type(outputs).__name__
            raise ValueError(f"the net's output is a {kind}; matrix='{matrix}' needs one tensor")
        if matrix == "fisher" and outputs.shape[:1] != (self.samples,):
            raise ValueError(
                f"the net's output is {tuple(outputs.shape)} for {self.samples} samples; "
                "matrix='fisher' needs one row for each sample"
            )

    def fisher_product(self, gradient: Tensor, tangent: Tensor) -> Tensor:
        """Multiply a tangent of the outputs by the outer product of each sample's gradient."""
        inner = (gradient * tangent).reshape(len(gradient), -1).sum(1)
        inner = inner if self.summed else inner * self.samples
        return gradient * inner.view(-1, *[1] * (gradient.dim() - 1))
