"""SET: a mask that moves at random while the net trains (Mocanu et al., Nat. Commun. 9, 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from training.masks.rigl import Rigl


@dataclass(frozen=True)
class Set(Rigl):
    """RigL's schedule, but chance decides what comes alive, and the optimiser takes every step."""

    replaces_step: ClassVar[bool] = False

    def growth(self, gradient: Tensor, generator: torch.Generator) -> Tensor:
        """Random numbers."""
        return torch.rand(gradient.shape, generator=generator).to(gradient)
