"""The loss of one batch as a function of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

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
    """

    outputs: Callable[[Sequence[Tensor]], Any]
    loss: Callable[..., Tensor]
    samples: int
    reads_weights: bool = False
    summed: bool = False

    def evaluate(self, weights: Sequence[Tensor]) -> tuple[Any, Tensor]:
        """Return the outputs and the loss."""
        outputs = self.outputs(weights)
        return outputs, self.loss(outputs, *[weights] * self.reads_weights)

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
        if matrix == "fisher" and len(outputs) != self.samples:
            raise ValueError(
                f"the net's output has {len(outputs)} rows for {self.samples} samples; "
                "matrix='fisher' needs one row for each sample"
            )

    def fisher_product(self, gradient: Tensor, tangent: Tensor) -> Tensor:
        """Multiply a tangent of the outputs by the outer product of each sample's gradient."""
        inner = (gradient * tangent).reshape(len(gradient), -1).sum(1)
        inner = inner if self.summed else inner * self.samples
        return gradient * inner.view(-1, *[1] * (gradient.dim() - 1))
