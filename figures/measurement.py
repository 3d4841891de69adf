"""Need: a measurement that an item of a paper is drawn from, whatever the scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from training.config import Run


@dataclass(frozen=True)
class Need:
    """A diagnostic of a training.

    Attributes:
        run: The training as the paper has it; a scale says what becomes of it.
        diagnostic: One of `sparsediag.diagnostics`, or "history" for what the training recorded.
        split: Part of the data that is measured.
        when: "best" for the best epoch, "early" for the papers' fifth of 180.
        options: Options of the diagnostic, as pairs.
        along: For a perturbation: the spectrum whose eigenvectors are followed.
    """

    run: Run
    diagnostic: str = "history"
    split: str = "train"
    when: Literal["best", "early"] = "best"
    options: tuple[tuple[str, Any], ...] = ()
    along: Need | None = None

    @classmethod
    def top_curve(cls, run: Run) -> Need:
        """The test loss along the top Hessian eigenvector of the training loss."""
        top = cls(run, "spectrum", options=(("top", 1),))
        return cls(run, "perturbation", split="test", along=top)
