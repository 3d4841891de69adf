"""Size and direction of a module's outputs and of the gradient that reaches them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class Wave:
    """Sums over the outputs of one module and over the gradients there.

    The cosines of all pairs need no pairs: |sum u|^2 = n + n (n - 1) mean cosine, where u are the
    outputs of n samples, each over its own norm.
    """

    def __init__(self) -> None:
        self.numbers, self.apart, self.reached = 0, True, True
        self.squares: Tensor | float = 0.0
        self.slopes: Tensor | float = 0.0
        self.sums: dict[Any, Tensor] = {}  # of directions, by call and shape
        self.directions: dict[Any, Tensor | int] = {}  # their numbers

    def forward(self, output: Tensor, call: int, samples: int, *, apart: bool) -> None:
        """Add what came out of a call, and wait for the gradient.

        Args:
            output: Of the module.
            call: Its number in this pass.
            samples: Their number.
            apart: Whether each row of the output is one sample's.
        """
        self.numbers += output.numel()
        self.apart &= apart
        a = output.detach()
        a = a if a.dtype in (torch.float32, torch.float64) else a.float()
        rows = a.reshape(len(a), -1)
        norms = rows.norm(dim=1)
        self.squares = self.squares + norms.double().square().sum()
        key = (call, rows.shape[1])
        scale = torch.where(norms > 0, 1 / norms, 0)
        self.sums[key] = self.sums.get(key, 0) + (scale @ rows).double()
        self.directions[key] = self.directions.get(key, 0) + (norms > 0).sum()
        self.reached &= output.requires_grad
        if output.requires_grad:
            output.register_hook(lambda slope: self.back(slope * samples))

    def back(self, slope: Tensor) -> None:
        """Add the gradient of the samples' own losses."""
        norm = torch.linalg.vector_norm(slope.detach(), dtype=torch.float64)
        self.slopes = self.slopes + norm.square()

    @property
    def found(self) -> tuple[float, float, float]:
        """Size, mean cosine, and size of the gradient."""
        n = np.array([float(number) for number in self.directions.values()])
        whole = np.array([float(total.square().sum()) for total in self.sums.values()])
        pairs = float((n * (n - 1)).sum())
        cosine = float((whole - n).sum()) / pairs if self.apart and pairs else np.nan
        slope = (float(self.slopes) / self.numbers) ** 0.5 if self.reached else np.nan
        return (float(self.squares) / self.numbers) ** 0.5, cosine, slope
