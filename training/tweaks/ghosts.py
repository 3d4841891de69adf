"""Ghosts: soft neurons (GSw) and skips (GSk) that are gone before the first drop (ToST, 2.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from sparsediag.models import SKIPS, GhostReLU, GhostSkip
from training.schedule import epoch_at
from training.tweaks.tweak import Tweak


@dataclass(frozen=True)
class GhostNeurons(Tweak):
    """GSw: Swish, made steeper each epoch, and exactly ReLU in the end.

    x sigmoid(beta x) with beta_e = 1 + (last_beta - 1) e / (T - 1) for epochs e < T.

    Attributes:
        last_beta: Steepness in the last epoch before ReLU takes over.
        until: Fraction of the training after which the neurons are ReLU; the paper ends them right
            before the first drop of the learning rate.
    """

    last_beta: float = 10.0
    until: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.last_beta < math.inf:
            raise ValueError(f"last_beta {self.last_beta}: need a finite number, 1 or more")
        _check_until(self.until)

    def options(self) -> dict[str, Any]:
        return {"activation": "ghost"}

    def over(self, epochs: int) -> int:
        return _end(self.until, epochs)

    def update(self, net: nn.Module, epoch: int, epochs: int) -> None:
        end = self.over(epochs)
        beta = 1 + (self.last_beta - 1) * epoch / max(end - 1, 1)
        for module in net.modules():
            if isinstance(module, GhostReLU):
                module.fade(1 / beta if epoch < end else 0.0)


@dataclass(frozen=True)
class GhostSkips(Tweak):
    """GSk: a skip around every 3x3 convolution whose gate closes: alpha_e = 1 - e / T for e < T.

    Attributes:
        kind: How the skipped signal is made to fit; see `sparsediag.models.GhostSkip`.
        until: Fraction of the training after which the gate is shut (the first drop).
    """

    kind: str = "identity_bn"
    until: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in SKIPS:
            raise ValueError(f"kind '{self.kind}': need one of {', '.join(SKIPS)}")
        _check_until(self.until)

    def options(self) -> dict[str, Any]:
        return {"skips": self.kind}

    def over(self, epochs: int) -> int:
        return _end(self.until, epochs)

    def update(self, net: nn.Module, epoch: int, epochs: int) -> None:
        end = self.over(epochs)
        for module in net.modules():
            if isinstance(module, GhostSkip):
                module.fade(max(0.0, 1 - epoch / end) if end else 0.0)


def _end(until: float, epochs: int) -> int:
    """The first epoch without ghosts; the last epoch never has any."""
    return min(epoch_at(until, epochs), epochs - 1)


def _check_until(until: float) -> None:
    if not 0 <= until < 1:
        raise ValueError(f"until {until}: need a fraction of the training, in [0, 1)")
