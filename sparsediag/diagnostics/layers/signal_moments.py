"""Size and direction of a module's outputs, and size of the gradient at them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class SignalMoments:
    """Running sums over the outputs of one module and over the gradients at them.

    The mean cosine over all pairs of samples needs no loop over pairs: if u are the outputs of n
    samples, each divided by its norm, then |sum u|^2 = n + n (n - 1) mean cosine.
    """

    def __init__(self) -> None:
        self.numbers, self.per_sample, self.differentiable = 0, True, True
        self.squares: Tensor | float = 0.0
        self.gradient_squares: Tensor | float = 0.0
        self.unit_sums: dict[Any, Tensor] = {}  # sum of u, by call and shape
        self.unit_counts: dict[Any, Tensor | int] = {}  # n, likewise

    def add(self, output: Tensor, call: int, samples: int, *, per_sample: bool) -> None:
        """Add an output, and the gradient at it once the backward pass has it.

        Args:
            output: The output of the module.
            call: Number of the module's call in this pass.
            samples: Number of samples in the batch.
            per_sample: True if the output has one row for each sample.
        """
        self.numbers += output.numel()
        self.per_sample &= per_sample
        values = output.detach()
        values = values if values.dtype in (torch.float32, torch.float64) else values.float()
        rows = values.reshape(len(values), -1)
        norms = rows.norm(dim=1)
        self.squares = self.squares + norms.double().square().sum()
        key = (call, rows.shape[1])
        scale = torch.where(norms > 0, 1 / norms, 0)
        self.unit_sums[key] = self.unit_sums.get(key, 0) + (scale @ rows).double()
        self.unit_counts[key] = self.unit_counts.get(key, 0) + (norms > 0).sum()
        self.differentiable &= output.requires_grad
        if output.requires_grad:  # times the samples: the gradient of each sample's own loss
            output.register_hook(lambda gradient: self._add_gradient(gradient * samples))

    def _add_gradient(self, gradient: Tensor) -> None:
        norm = torch.linalg.vector_norm(gradient.detach(), dtype=torch.float64)
        self.gradient_squares = self.gradient_squares + norm.square()

    @property
    def moments(self) -> tuple[float, float, float]:
        """Root mean square of the outputs, mean cosine, root mean square of the gradient."""
        n = np.array([float(count) for count in self.unit_counts.values()])
        squares = np.array([float(total.square().sum()) for total in self.unit_sums.values()])
        pairs = float((n * (n - 1)).sum())
        cosine = float((squares - n).sum()) / pairs if self.per_sample and pairs else np.nan
        gradient = (float(self.gradient_squares) / self.numbers) ** 0.5
        rms = (float(self.squares) / self.numbers) ** 0.5
        return rms, cosine, gradient if self.differentiable else np.nan
