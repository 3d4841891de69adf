"""Label smoothing (LS): the true class gets 1 - alpha + alpha / K, the others alpha / K."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from training.optim import epoch_at
from training.tweaks.base import Objective, Tweak


@dataclass(frozen=True)
class Smoothing(Tweak):
    """Label smoothing in the training loss; losses that are reported have none.

    Attributes:
        alpha: Probability that is spread over all classes, at first.
        decay_until: Share of the training in which alpha falls to 0, linearly; 0 keeps it.
    """

    alpha: float = 0.1
    decay_until: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 1:
            raise ValueError(f"alpha {self.alpha}: need a number in [0, 1)")
        if not 0 <= self.decay_until <= 1:
            raise ValueError(
                f"decay_until {self.decay_until}: need a share of the training, 0 to 1"
            )

    def strength(self, epoch: int, epochs: int) -> float:
        """Return alpha (1 - epoch / T) before epoch T = decay_until x epochs, then 0.

        >>> [Smoothing(alpha=0.5, decay_until=0.5).strength(e, 20) for e in (0, 5, 10, 15)]
        [0.5, 0.25, 0.0, 0.0]
        """
        if not self.decay_until:
            return self.alpha
        return self.alpha * max(0.0, 1 - epoch / max(epoch_at(self.decay_until, epochs), 1))

    def phase(self, epoch: int, epochs: int) -> float:
        return self.strength(epoch, epochs)

    def loss(self, loss: Objective, epoch: int, epochs: int, state: Any = None) -> Objective:
        alpha = self.strength(epoch, epochs)
        return partial(loss, label_smoothing=alpha) if alpha else loss
