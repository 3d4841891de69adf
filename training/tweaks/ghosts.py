"""Ghosts: soft neurons (GSw) and skips (GSk) that are gone before the first drop (ToST, 2.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from sparsediag.core.errors import unknown_name
from sparsediag.models import SKIPS, GhostReLU, GhostSkip
from sparsediag.models.ghost import Site
from training.optim import epoch_at
from training.tweaks.base import Tweak


@dataclass(frozen=True)
class GhostNeurons(Tweak):
    """GSw: Swish, made steeper each epoch, and exactly ReLU in the end.

    x sigmoid(beta x) with beta_e from 1 to last_beta in the epochs e = 0 .. T - 1.

    Attributes:
        last_beta: Steepness in the last epoch before ReLU takes over.
        until: Fraction of the training after which the neurons are ReLU; the paper ends them right
            before the first drop of the learning rate.
        schedule: "linear", 1 + (last_beta - 1) e / (T - 1); "geometric", last_beta^(e / (T - 1));
            "none" for Swish that stays.
    """

    last_beta: float = 10.0
    until: float = 0.5
    schedule: Literal["linear", "geometric", "none"] = "linear"

    def __post_init__(self) -> None:
        if not 1 <= self.last_beta < math.inf:
            raise ValueError(f"last_beta {self.last_beta}: need a finite number, 1 or more")
        _check(self.until, self.schedule, ("linear", "geometric", "none"))

    def options(self) -> dict[str, Any]:
        return {"activation": "ghost"}

    def over(self, epochs: int) -> int:
        return 0 if self.schedule == "none" else _end(self.until, epochs)

    def beta(self, epoch: int, epochs: int) -> float:
        """The steepness of an epoch; infinite for ReLU.

        >>> [GhostNeurons().beta(epoch, 20) for epoch in (0, 3, 9, 10)]
        [1.0, 4.0, 10.0, inf]
        """
        if self.schedule == "none":
            return 1.0
        end = self.over(epochs)
        if epoch >= end:
            return math.inf
        share = epoch / max(end - 1, 1)
        if self.schedule == "geometric":
            return float(self.last_beta**share)
        return 1 + (self.last_beta - 1) * share

    def phase(self, epoch: int, epochs: int) -> float:
        return self.beta(epoch, epochs)

    def update(self, net: nn.Module, epoch: int, epochs: int) -> None:
        for module in net.modules():
            if isinstance(module, GhostReLU):
                module.fade(1 / self.beta(epoch, epochs))


@dataclass(frozen=True)
class GhostSkips(Tweak):
    """GSk: a skip around every 3x3 convolution whose gate closes before epoch T.

    Attributes:
        kind: How the skipped signal is made to fit; see `sparsediag.models.GhostSkip`.
        site: Around every 3x3 "convolution", before the activation (ToST), or from the input of
            a block to its "block_output", behind the activation (the pruning pipeline).
        until: Fraction of the training after which the gate is shut (the first drop).
        schedule: "linear", 1 - e / T; "cosine", (1 + cos(pi e / T)) / 2; "cubic", (1 - e / T)^3;
            "step", open until it is shut at once; "none" for skips that stay.

    The papers leave open how the gate closes and how the signal is made to fit. The defaults are
    what held up best on random and SNIP masks at 98 % (tests/bench/RESULTS.md): a mean keeps the
    features' size, and a gate that is nearly shut long before the first drop leaves the net time
    to learn without it at the full learning rate.
    """

    kind: str = "average"
    site: Site = "convolution"
    until: float = 0.5
    schedule: Literal["linear", "cosine", "cubic", "step", "none"] = "cubic"

    def __post_init__(self) -> None:
        if self.kind not in SKIPS:
            raise ValueError(f"kind '{self.kind}': need one of {', '.join(SKIPS)}")
        if self.site not in get_args(Site):
            raise ValueError(unknown_name("site", self.site, get_args(Site)))
        _check(self.until, self.schedule, ("linear", "cosine", "cubic", "step", "none"))

    def options(self) -> dict[str, Any]:
        return {"skips": self.kind + ("@block_output" if self.site == "block_output" else "")}

    def over(self, epochs: int) -> int:
        return 0 if self.schedule == "none" else _end(self.until, epochs)

    def gate(self, epoch: int, epochs: int) -> float:
        """Return how far the gate is open in an epoch.

        >>> [GhostSkips().gate(epoch, 16) for epoch in (0, 4, 8)]
        [1.0, 0.125, 0.0]
        """
        end = self.over(epochs)
        if self.schedule == "none" or (self.schedule == "step" and epoch < end):
            return 1.0
        if epoch >= end:
            return 0.0
        if self.schedule == "cosine":
            return round((1 + math.cos(math.pi * epoch / end)) / 2, 12)
        return (1 - epoch / end) ** (3 if self.schedule == "cubic" else 1)

    def phase(self, epoch: int, epochs: int) -> float:
        return self.gate(epoch, epochs)

    def update(self, net: nn.Module, epoch: int, epochs: int) -> None:
        for module in net.modules():
            if isinstance(module, GhostSkip):
                module.fade(self.gate(epoch, epochs))


def _end(until: float, epochs: int) -> int:
    """The first epoch without ghosts; the last epoch never has any."""
    return min(epoch_at(until, epochs), epochs - 1)


def _check(until: float, schedule: str, known: tuple[str, ...]) -> None:
    if schedule not in known:
        raise ValueError(unknown_name("schedule", schedule, known))
    if not 0 <= until < 1:
        raise ValueError(f"until {until}: need a fraction of the training, in [0, 1)")
