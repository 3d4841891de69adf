"""One-shot magnitude pruning: train dense, keep the largest weights, start again with them.

The first round of the lottery-ticket procedure (Frankle and Carbin, ICLR 2019), cut at once to
the density that is wanted. With `rewind = 1` the survivors go on from where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import prunable
from training.masks.base import Method
from training.prerequisite import Prerequisite


@dataclass(frozen=True)
class Magnitude(Method):
    """The largest |w| at the end of a dense training; the survivors go back to their start."""

    def before(self) -> tuple[Prerequisite, ...]:
        """Return the dense training: masks are drawn from the network without tweaks."""
        return (Prerequisite(),)

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """The largest weights, over all layers together."""
        return largest(problem.net, trained[0], self.density)


def largest(net: nn.Module, trained: Checkpoint, density: float) -> Mask:
    """The largest |w| of a checkpoint, over all prunable layers of `net` together."""
    return Mask.top({name: trained.weights[name].abs() for name in prunable(net)}, density)
