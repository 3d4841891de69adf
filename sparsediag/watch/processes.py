"""Counts of the training passes, joined over the processes of a distributed training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, distributed, nn

from sparsediag.core.batches import num_samples
from sparsediag.diagnostics.layers.zero_counts import ZeroCounts

Counts = defaultdict[str, ZeroCounts]


def empty_counts() -> Counts:
    """Return counts by the names of modules, none of them yet."""
    return defaultdict(partial(ZeroCounts, threshold=0.0, relative=0.0, classes=0))


@dataclass
class Part:
    """Counts of the training passes of one process.

    Attributes:
        loss: The loss of the last step.
        steps: Number of steps.
        samples: Number of samples in them; None if it is not clear.
        counts: Counts of zeros, by module.
    """

    loss: float | None = None
    steps: int = 0
    samples: float | None = 0
    counts: Counts = field(default_factory=empty_counts)

    def add_samples(self, inputs: Any, *, clear: bool) -> None:
        """Count the samples in the inputs of a pass; they are unknown if it is not `clear`."""
        try:
            samples = num_samples((inputs, None))
            known = clear and self.samples is not None
            self.samples = (self.samples or 0) + samples if known else None
        except ValueError:
            self.samples = None

    @property
    def batch(self) -> float | None:
        """Number of samples in a step; None if it is not known."""
        return self.samples / self.steps if self.samples and self.steps else None


def is_first_process() -> bool:
    """Return whether this is the only process, or the one with rank 0."""
    together = distributed.is_available() and distributed.is_initialized()
    return not together or distributed.get_rank() == 0


def gather(part: Part, net: nn.Module) -> list[Part]:
    """Return the parts of all processes if `net` is a DistributedDataParallel, else this one."""
    if not isinstance(net, nn.parallel.DistributedDataParallel):
        return [part]
    for counts in part.counts.values():
        counts.sums = counts.sums.cpu() if isinstance(counts.sums, Tensor) else counts.sums
        counts.active = {width: active.cpu() for width, active in counts.active.items()}
    parts: list[Any] = [None] * distributed.get_world_size(net.process_group)
    distributed.all_gather_object(parts, part, group=net.process_group)
    return parts


def merge(parts: Sequence[Part]) -> Part:
    """Return the mean loss, and the counts of all samples together."""
    losses = [part.loss for part in parts if part.loss is not None]
    samples = [part.samples for part in parts if part.samples is not None]
    total = Part(
        loss=sum(losses) / len(losses) if losses else None,
        steps=parts[0].steps,
        samples=sum(samples) if len(samples) == len(parts) else None,
    )
    for part in parts:
        for name, counts in part.counts.items():
            total.counts[name].merge(counts)
    return total
