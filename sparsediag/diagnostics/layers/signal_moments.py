"""Size and direction of a module's outputs, and size of the gradient at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class SignalMoments:
    """Running sums over one output of a module and over the gradients at it.

    The mean cosine over all pairs of samples needs no loop over pairs: if u are the outputs of n
    samples, each divided by its norm, then |sum u|^2 = n + n (n - 1) mean cosine.
    """

    def __init__(self) -> None:
        self.numbers, self.per_sample = 0, True
        self.differentiable, self.in_loss = True, False
        self.squares: Tensor | float = 0.0
        self.gradient_squares: Tensor | float = 0.0
        self.unit_sums: dict[Any, Tensor] = {}  # sum of u, by call and shape
        self.unit_counts: dict[Any, Tensor | int] = {}  # n, likewise

    def add(self, output: Tensor, call: int, scale: float, axis: int | None) -> None:
        """Add an output, and the gradient at it once the backward pass has it.

        Args:
            output: The output of the module.
            call: Number of the module's call in this pass.
            scale: Factor of the gradient: that of the mean loss times the number of samples is that
                of each sample's own loss.
            axis: The dimension of the samples; None if unclear.
        """
        self.numbers += output.numel()
        self.per_sample &= axis is not None
        values = output.detach().movedim(axis or 0, 0)
        values = values if values.dtype in (torch.float32, torch.float64) else values.float()
        rows = values.reshape(len(values), -1)
        norms = rows.norm(dim=1)
        self.squares = self.squares + norms.double().square().sum()
        key = (call, rows.shape[1])
        inverse = torch.where(norms > 0, 1 / norms, 0)
        self.unit_sums[key] = self.unit_sums.get(key, 0) + (inverse @ rows).double()
        self.unit_counts[key] = self.unit_counts.get(key, 0) + (norms > 0).sum()
        self.differentiable &= output.requires_grad
        if output.requires_grad:
            output.register_hook(lambda gradient: self._add_gradient(gradient * scale))

    def _add_gradient(self, gradient: Tensor) -> None:
        self.in_loss = True
        norm = torch.linalg.vector_norm(gradient.detach(), dtype=torch.float64)
        self.gradient_squares = self.gradient_squares + norm.square()


def pooled_moments(outputs: Sequence[SignalMoments]) -> tuple[float, float, float]:
    """Return root mean square, mean cosine, and root mean square gradient of a module's outputs.

    They are over all numbers of the outputs that the loss depends on; if there are none, of the
    first output.
    """
    used = [output for output in outputs if output.in_loss] or outputs[:1]
    n = np.array([float(count) for o in used for count in o.unit_counts.values()])
    sums = [float(total.square().sum()) for o in used for total in o.unit_sums.values()]
    pairs, numbers = float((n * (n - 1)).sum()), sum(o.numbers for o in used)
    per_sample = all(o.per_sample for o in used) and pairs
    cosine = float((np.array(sums) - n).sum()) / pairs if per_sample else np.nan
    rms = (sum(float(o.squares) for o in used) / numbers) ** 0.5
    gradient = (sum(float(o.gradient_squares) for o in used) / numbers) ** 0.5
    return rms, cosine, gradient if all(o.differentiable for o in used) else np.nan
