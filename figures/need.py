"""Need: a measurement that an item of a paper is drawn from, whatever the scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

TOST = ("GSk", "GSw", "LRsI", "LS")


@dataclass(frozen=True)
class Need:
    """One diagnostic of one training.

    Attributes:
        diagnostic: One of `sparsediag.diagnostics`, or "history" for what the training recorded.
        tweaks: Tweaks of the training, by the paper's names.
        activation: relu, or swish or mish for good.
        seed: Seed of the training.
        split: Part of the data that is measured.
        when: "best" for the best epoch, "early" for the papers' fifth of 180.
        options: Options of the diagnostic, as pairs.
        along: For a perturbation: the spectrum whose eigenvectors are followed.
    """

    diagnostic: str
    tweaks: tuple[str, ...] = ()
    activation: str = "relu"
    seed: int = 0
    split: str = "train"
    when: Literal["best", "early"] = "best"
    options: tuple[tuple[str, Any], ...] = ()
    along: Need | None = None

    @classmethod
    def top_curve(cls, tweaks: tuple[str, ...]) -> Need:
        """The test loss along the top Hessian eigenvector of the training loss."""
        top = cls("spectrum", tweaks=tweaks, options=(("top", 1),))
        return cls("perturbation", tweaks=tweaks, split="test", along=top)
