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
    """Return the training loss without tweaks."""
    return F.cross_entropy(outputs, labels, **options)


@dataclass(frozen=True)
class TrainingContext:
    """State of a training that is passed to a tweak when it starts.

    Attributes:
        net: The network with its first weights; the mask is not applied yet.
        mask: The live weights, or None.
        batches: Endless training batches, drawn for this tweak alone.
        trained: The last checkpoint of each run of `before`.
        resumed: Whether an interrupted training continues with these weights.
        permanent_ghosts: Whether the network keeps its ghosts.
        epoch_steps: Steps of an epoch of the training; 0 if unknown.
        batch_size: Images of a batch of the training.
        progress: Called as `progress(done, all)` in a long start, if there is one to be told.
    """

    net: nn.Module
    mask: Mask | None
    batches: Iterator[tuple[Tensor, Tensor]]
    trained: Sequence[Checkpoint]
    resumed: bool = False
    permanent_ghosts: bool = False
    epoch_steps: int = 0
    batch_size: int = 128
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class Tweak:
    """Base class of tweaks: fields are options in a run file, under `[tweaks.NAME]`.

    Epochs are counted from 0.
    """

    def options(self) -> dict[str, Any]:
        """Return options that the network is built with."""
        return {}

    def before(self) -> tuple[Prerequisite, ...]:
        """Return the runs that must be finished first."""
        return ()

    def start(self, context: TrainingContext) -> Any:
        """Prepare the training; the value that this returns is passed to `loss`."""

    def metrics(self, context: TrainingContext) -> dict[str, Any]:
        """Return entries for the first row of the history: what `start` does with its options."""
        return {}

    def update(self, net: nn.Module, epoch: int, epochs: int) -> None:
        """Change the network before an epoch."""

    def loss(self, loss: Objective, epoch: int, epochs: int, state: Any = None) -> Objective:
        """Return the training loss of an epoch.

        Args:
            loss: The loss of the tweaks before this one.
            epoch: The epoch.
            epochs: Epochs of the training.
            state: The value that `start` returned.
        """
        return loss

    def phase(self, epoch: int, epochs: int) -> Hashable:
        """Return a key of an epoch: steps of epochs with equal keys compute the same.

        Steps on a GPU are recorded again when it changes.
        """
        return epoch

    def plain_from(self, epochs: int) -> int:
        """Return the first epoch in which the network has the plain architecture."""
        return 0
