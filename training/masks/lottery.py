"""Lottery: iterative magnitude pruning with a reset (Frankle and Carbin, ICLR 2019).

Train, prune a fifth of the remaining weights, reset the others to their first values, and repeat:
after k rounds a fraction 0.8^k is left. For other densities the last round prunes less. The rounds
are ordinary runs, which runs of several densities share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import prunable
from training.masks.base import Method
from training.prerequisite import Prerequisite


@dataclass(frozen=True)
class Lottery(Method):
    """Lottery ticket: keep the largest |w| of the weights that the last round has left.

    Attributes:
        prune_rate: Fraction of the remaining weights that a round prunes.
        rewound: Rewind the rounds as the run is; otherwise they start from the initialisation, and
            only the run itself is rewound, as in the papers.
    """

    prune_rate: float = 0.2
    rewound: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.prune_rate < 1:
            raise ValueError(f"prune_rate = {self.prune_rate}: need a share between 0 and 1")

    @property
    def rounds(self) -> int:
        """Number of full rounds before the last one.

        >>> [Lottery(density=d).rounds for d in (0.8, 0.64, 0.25, 0.1)]
        [0, 1, 6, 10]
        """
        rounds = round(math.log(self.density) / math.log(1 - self.prune_rate), 9)
        return max(0, math.ceil(rounds) - 1)

    def before(self) -> tuple[Prerequisite, ...]:
        """Return the last round; for the first one the dense training."""
        if not self.rounds:
            return (Prerequisite(keeps_checkpoint=False),)
        earlier = replace(self, density=(1 - self.prune_rate) ** self.rounds)
        return (Prerequisite(earlier, keeps_checkpoint=False, rewound=self.rewound),)

    def rewind_source(self, rewind: float) -> Prerequisite:
        """Return the dense training; without a reset (`rewind` = 1) the last round."""
        return self.before()[0] if rewind == 1 else Prerequisite()

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """Keep the largest live weights of all layers together."""
        weights, mask = trained[0].weights, trained[0].mask
        scores = {name: weights[name].abs() for name in prunable(problem.net)}
        for name, m in (mask or {}).items():
            scores[name] = scores[name].masked_fill(~m, -1)
        return Mask.top(scores, self.density)
