"""Batch loss: the loss of one batch as a function of the weights, in two parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Matrix = Literal["hessian", "gauss-newton", "fisher"]


@dataclass(frozen=True)
class BatchLoss:
    """The loss of one batch as a function of the weights: weights -> outputs -> loss.

    Attributes:
        outputs: From the weights, a list of tensors.
        loss: From the outputs, the mean over the samples.
        samples: Number of samples in the batch.
    """

    outputs: Callable[[Sequence[Tensor]], Any]
    loss: Callable[[Any], Tensor]
    samples: int

    def check_matrix(self, outputs: Any, matrix: Matrix) -> None:
        """Refuse outputs from which a matrix cannot be made."""
        if matrix != "hessian" and not isinstance(outputs, Tensor):
            kind = type(outputs).__name__
            raise ValueError(f"the net's output is a {kind}; matrix='{matrix}' needs one tensor")
        if matrix == "fisher" and len(outputs) != self.samples:
            raise ValueError(
                f"the net's output has {len(outputs)} rows for {self.samples} samples; "
                "matrix='fisher' needs one for each"
            )

    def fisher_product(self, slope: Tensor, change: Tensor) -> Tensor:
        """Apply the outer product of each sample's gradient to a change of the outputs."""
        along = (slope * change).reshape(len(slope), -1).sum(1) * self.samples
        return slope * along.view(-1, *[1] * (slope.dim() - 1))
