"""SET: a mask that moves at random during training (Mocanu et al., Nat. Commun. 9, 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from training.masks.rigl import Rigl


@dataclass(frozen=True)
class Set(Rigl):
    """SET: RigL's schedule, but random weights grow, and every step updates the weights."""

    replaces_step: ClassVar[bool] = False

    def growth_scores(self, gradient: Tensor, generator: torch.Generator) -> Tensor:
        """Return random numbers."""
        return torch.rand(gradient.shape, generator=generator).to(gradient)
