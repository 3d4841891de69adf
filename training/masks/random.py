"""Random pruning: every weight of the net has the same chance to stay (the control of ToST)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sparsediag.chance import stream
from sparsediag.checkpoint import Checkpoint
from sparsediag.mask import Mask, prunable
from sparsediag.problem import Problem
from training.masks.method import Method


@dataclass(frozen=True)
class Random(Method):
    """Random scores and one global cut, so each layer gets about the same density."""

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """The weights with the highest random scores."""
        generator = stream("mask", seed)
        shapes = dict(problem.net.named_parameters())
        scores = {
            name: torch.rand(shapes[name].shape, generator=generator)
            for name in prunable(problem.net)
        }
        return Mask.top(scores, self.density)
