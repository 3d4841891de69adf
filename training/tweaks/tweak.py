"""Tweak: a change to how a sparse net is trained. Every hook does nothing unless overridden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from sparsediag.problem import Loss


@dataclass(frozen=True)
class Tweak:
    """One tweak. Its fields are its options in a run file, under `[tweaks.NAME]`."""

    def options(self) -> dict[str, Any]:
        """Options that the net is built with."""
        return {}

    def update(self, net: nn.Module, epoch: int, epochs: int) -> None:
        """Called before every epoch, counted from 0."""

    def loss(self, loss: Loss, epoch: int, epochs: int) -> Loss:
        """The training loss of an epoch, given the plain one."""
        return loss

    def over(self, epochs: int) -> int:
        """The first epoch whose net is the plain architecture again."""
        return 0
