"""Random pruning: the control of ToST. Chance decides which weights stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.errors import unknown_name
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import prunable
from sparsediag.core.rng import stream
from training.masks.base import Method
from training.masks.layer_densities import best, counts, erk, uniform

SHARES = {"layer": uniform, "erk": erk}


@dataclass(frozen=True)
class Random(Method):
    """Random scores.

    Attributes:
        scope: "global", one cut over all layers, so each gets about the same density, as in ToST's
            code; "layer", exactly the same density for each; "erk", Erdos-Renyi-Kernel.
    """

    scope: Literal["global", "layer", "erk"] = "global"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope not in ("global", *SHARES):
            raise ValueError(unknown_name("scope", self.scope, ("global", *SHARES)))

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """The weights with the highest random scores."""
        generator = stream("mask", seed)
        weights = dict(problem.net.named_parameters())
        shapes = {name: weights[name].shape for name in prunable(problem.net)}
        scores = {name: torch.rand(s, generator=generator) for name, s in shapes.items()}
        if self.scope == "global":
            return Mask.top(scores, self.density)
        return best(scores, counts(shapes, SHARES[self.scope](shapes, self.density)))
