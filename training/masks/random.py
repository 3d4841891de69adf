"""Random pruning, the baseline of ToST."""

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
from training.masks.layer_densities import erk, round_counts, top_per_layer, uniform

LAYER_DENSITIES = {"layer": uniform, "erk": erk}


@dataclass(frozen=True)
class Random(Method):
    """Keep random weights.

    Attributes:
        scope: "global", all layers ranked together, so that each has about the same density, as in
            ToST's code; "layer", exactly the same density for each; "erk", Erdos-Renyi-Kernel.
    """

    scope: Literal["global", "layer", "erk"] = "global"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope not in ("global", *LAYER_DENSITIES):
            raise ValueError(unknown_name("scope", self.scope, ("global", *LAYER_DENSITIES)))

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """Keep the weights with the highest random scores."""
        generator = stream("mask", seed)
        shapes = {n: problem.net.get_parameter(n).shape for n in prunable(problem.net)}
        scores = {name: torch.rand(s, generator=generator) for name, s in shapes.items()}
        if self.scope == "global":
            return Mask.top(scores, self.density)
        densities = LAYER_DENSITIES[self.scope](shapes, self.density)
        return top_per_layer(scores, round_counts(shapes, densities))
