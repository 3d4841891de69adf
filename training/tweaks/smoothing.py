"""Label smoothing (LS): the true class gets 1 - alpha + alpha / K, the others alpha / K."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from sparsediag.problem import Loss
from training.tweaks.tweak import Tweak


@dataclass(frozen=True)
class Smoothing(Tweak):
    """Smoothed labels in the training loss only; whatever is measured uses the plain one.

    Attributes:
        alpha: Probability that is spread over all classes.
    """

    alpha: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 1:
            raise ValueError(f"alpha {self.alpha}: need a number in [0, 1)")

    def loss(self, loss: Loss) -> Loss:
        smoothed: Loss = partial(loss, label_smoothing=self.alpha)  # type: ignore[call-arg]
        return smoothed
