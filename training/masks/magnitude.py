"""One-shot magnitude pruning: train dense, keep the largest weights, train these again.

The first round of the lottery-ticket procedure (Frankle and Carbin, ICLR 2019), pruned at once to
the final density. With `rewind = 1` the remaining weights train on from their last values.
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
    """Keep the largest |w| at the end of a dense training, and reset them to their first values."""

    def before(self) -> tuple[Prerequisite, ...]:
        """Return the dense training, which has no tweaks."""
        return (Prerequisite(),)

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """Keep the largest weights of all layers together."""
        return largest_weights(problem.net, trained[0], self.density)


def largest_weights(net: nn.Module, trained: Checkpoint, density: float) -> Mask:
    """Return the mask of the largest |w| of a checkpoint, over all prunable layers of `net`."""
    return Mask.top({name: trained.weights[name].abs() for name in prunable(net)}, density)
