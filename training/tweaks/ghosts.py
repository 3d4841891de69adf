"""Ghosts: soft neurons (GSw) and skips (GSk) that fade before the first drop (ToST, 2.2)."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args, get_type_hints

from torch import nn

from sparsediag.core.errors import unknown_name
from sparsediag.models import SKIPS, GhostReLU, GhostSkip
from sparsediag.models.ghost import Site
from training.optim import epoch_at
from training.tweaks.base import Tweak


@dataclass(frozen=True, kw_only=True)
class Ghosts(Tweak):
    """Layers that fade until the network is the plain architecture.

    Attributes:
        until: Fraction of the training after which the ghosts are gone; in the paper, right before
            the first drop of the learning rate.
        schedule: How they fade; "none" for ghosts that stay.
    """

    until: float = 0.5
    schedule: str = "none"
    layer: ClassVar[type[GhostReLU | GhostSkip]]

    def __post_init__(self) -> None:
        schedules = get_args(get_type_hints(type(self))["schedule"])
        if self.schedule not in schedules:
            raise ValueError(unknown_name("schedule", self.schedule, schedules))
        if not 0 <= self.until < 1:
            raise ValueError(f"until {self.until}: need a fraction of the training, in [0, 1)")

    @abstractmethod
    def gate(self, epoch: int, epochs: int) -> float:
        """Return the strength of the ghosts in an epoch: 0 is the plain layer."""

    def plain_from(self, epochs: int) -> int:
        # the last epoch never has ghosts
        return 0 if self.schedule == "none" else min(epoch_at(self.until, epochs), epochs - 1)

    def phase(self, epoch: int, epochs: int) -> float:
        return self.gate(epoch, epochs)

    def update(self, net: nn.Module, epoch: int, epochs: int) -> None:
        for module in net.modules():
            if isinstance(module, self.layer):
                module.fade(self.gate(epoch, epochs))


@dataclass(frozen=True)
class GhostNeurons(Ghosts):
    """GSw: Swish that becomes steeper each epoch, and is exactly ReLU in the end.

    x sigmoid(beta x) with beta_e from 1 to last_beta in the epochs e = 0 .. T - 1.

    Attributes:
        until: Fraction of the training after which Swish is ReLU; T is that epoch.
        schedule: Steepness: "linear", 1 + (last_beta - 1) e / (T - 1); "geometric",
            last_beta^(e / (T - 1)); "none" for Swish that stays.
        last_beta: Steepness in the last epoch before ReLU.
    """

    schedule: Literal["linear", "geometric", "none"] = field(default="linear", kw_only=True)
    last_beta: float = 10.0
    layer = GhostReLU

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.last_beta < math.inf:
            raise ValueError(f"last_beta {self.last_beta}: need a finite number, 1 or more")

    def options(self) -> dict[str, Any]:
        return {"activation": "ghost"}

    def beta(self, epoch: int, epochs: int) -> float:
        """Return the steepness in an epoch; infinite for ReLU.

        >>> [GhostNeurons().beta(epoch, 20) for epoch in (0, 3, 9, 10)]
        [1.0, 4.0, 10.0, inf]
        """
        if self.schedule == "none":
            return 1.0
        end = self.plain_from(epochs)
        if epoch >= end:
            return math.inf
        fraction = epoch / max(end - 1, 1)
        if self.schedule == "geometric":
            return float(self.last_beta**fraction)
        return 1 + (self.last_beta - 1) * fraction

    def gate(self, epoch: int, epochs: int) -> float:
        return 1 / self.beta(epoch, epochs)


@dataclass(frozen=True)
class GhostSkips(Ghosts):
    """GSk: a skip around every 3x3 convolution whose gate closes before epoch T.

    The papers do not say how the gate closes, nor how the shapes are matched. The defaults were
    best on random and SNIP masks at 98 % sparsity (tests/bench/RESULTS.md): a mean keeps the size
    of the features, and a gate that is nearly closed long before the first drop leaves time to
    learn without it at the full learning rate.

    Attributes:
        until: Fraction of the training after which the skips are gone; T is that epoch.
        schedule: The gate: "linear", 1 - e / T; "cosine", (1 + cos(pi e / T)) / 2; "cubic",
            (1 - e / T)^3; "step", open until it closes at once; "none" for skips that stay.
        kind: Match of the shapes of the skipped signal: "identity_bn", "identity_rms", "identity",
            "average", "interpolate" or "conv1x1_bn" (see `sparsediag.models.GhostSkip`).
        site: Around every 3x3 "convolution", before the activation (ToST), or from the input of
            a block to its "block_output", after the activation (the pruning pipeline).
    """

    schedule: Literal["linear", "cosine", "cubic", "step", "none"] = field(
        default="cubic", kw_only=True
    )
    kind: str = "average"
    site: Site = "convolution"
    layer = GhostSkip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in SKIPS:
            raise ValueError(f"kind '{self.kind}': need one of {', '.join(SKIPS)}")
        if self.site not in get_args(Site):
            raise ValueError(unknown_name("site", self.site, get_args(Site)))

    def options(self) -> dict[str, Any]:
        return {"skips": self.kind + ("@block_output" if self.site == "block_output" else "")}

    def gate(self, epoch: int, epochs: int) -> float:
        """Return how far the gate is open in an epoch.

        >>> [GhostSkips().gate(epoch, 16) for epoch in (0, 4, 8)]
        [1.0, 0.125, 0.0]
        """
        end = self.plain_from(epochs)
        if self.schedule == "none" or (self.schedule == "step" and epoch < end):
            return 1.0
        if epoch >= end:
            return 0.0
        if self.schedule == "cosine":
            return round((1 + math.cos(math.pi * epoch / end)) / 2, 12)
        return (1 - epoch / end) ** (3 if self.schedule == "cubic" else 1)
