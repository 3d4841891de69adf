"""Base class of tweaks: every hook does nothing unless overridden."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.mask import Mask
from training.prerequisite import Prerequisite

Objective = Callable[..., Tensor]  # of outputs, labels and inputs, and options of cross-entropy


def cross_entropy(outputs: Tensor, labels: Tensor, inputs: Tensor, **options: Any) -> Tensor:
    """The plain training loss."""
    return F.cross_entropy(outputs, labels, **options)


@dataclass(frozen=True)
class TrainingContext:
    """State of a training that is passed to a tweak when it starts.

    Attributes:
        net: With its first weights; the mask is not applied yet.
        mask: The live weights, or None.
        batches: Training batches without end, drawn for this tweak alone.
        trained: The last checkpoint of each run that `before` asked for.
        resumed: Whether the weights are those of a training that goes on.
        stay: Whether the net's ghosts are for good.
    """

    net: nn.Module
    mask: Mask | None
    batches: Iterator[tuple[Tensor, Tensor]]
    trained: Sequence[Checkpoint]
    resumed: bool = False
    stay: bool = False


@dataclass(frozen=True)
class Tweak:
    """Base class of tweaks: fields are options in a run file, under `[tweaks.NAME]`."""

    def options(self) -> dict[str, Any]:
        """Options that the net is built with."""
        return {}

    def before(self) -> tuple[Prerequisite, ...]:
        """Return the runs that must be finished first."""
        return ()

    def start(self, scene: TrainingContext) -> Any:
        """Called once before the training; what it returns, `loss` gets."""

    def update(self, net: nn.Module, epoch: int, epochs: int) -> None:
        """Called before every epoch, counted from 0."""

    def loss(self, loss: Objective, epoch: int, epochs: int, kept: Any = None) -> Objective:
        """The training loss of an epoch, given the one so far."""
        return loss

    def phase(self, epoch: int, epochs: int) -> Hashable:
        """Return what tells the steps of an epoch from those of another; equal means the same.

        Steps on a GPU are recorded anew when it changes.
        """
        return epoch

    def over(self, epochs: int) -> int:
        """The first epoch whose net is the plain architecture again."""
        return 0
