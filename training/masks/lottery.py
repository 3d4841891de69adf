"""Lottery: iterative magnitude pruning with a reset (Frankle and Carbin, ICLR 2019).

Train, cut a fifth of the weights that are left, start the survivors again from where they began,
and repeat: after k rounds a share of 0.8^k is left. Other shares come from a smaller last cut. The
rounds are ordinary runs, so a ladder of densities shares them.
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
    """The largest |w| among those that the round before has left.

    Attributes:
        prune_rate: Share of the remaining weights that a round prunes.
        rewound: Rounds are rewound as the run is; else they start from the initialisation, and
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
        """Full rounds before the last cut.

        >>> [Lottery(density=d).rounds for d in (0.8, 0.64, 0.25, 0.1)]
        [0, 1, 6, 10]
        """
        rounds = round(math.log(self.density) / math.log(1 - self.prune_rate), 9)
        return max(0, math.ceil(rounds) - 1)

    def before(self) -> tuple[Prerequisite, ...]:
        """Return the round before; the dense training for the first."""
        if not self.rounds:
            return (Prerequisite(keeps_checkpoint=False),)
        earlier = replace(self, density=(1 - self.prune_rate) ** self.rounds)
        return (Prerequisite(earlier, keeps_checkpoint=False, rewound=self.rewound),)

    def origin(self, rewind: float) -> Prerequisite:
        """Return the dense training, or the round before where nothing is reset."""
        return self.before()[0] if rewind == 1 else Prerequisite()

    def start(self, problem: Problem, trained: Sequence[Checkpoint], *, seed: int) -> Mask:
        """The largest of the weights that are alive, over all layers together."""
        weights, alive = trained[0].weights, trained[0].mask
        scores = {name: weights[name].abs() for name in prunable(problem.net)}
        for name, m in (alive or {}).items():
            scores[name] = scores[name].masked_fill(~m, -1)
        return Mask.top(scores, self.density)
