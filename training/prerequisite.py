"""Prerequisite: a run that a method or a tweak needs first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prerequisite:
    """The same training without tweaks; `Run.prerequisite` makes a run of it.

    Attributes:
        mask: Its pruning method; None for the dense network.
        keeps_checkpoint: Whether it keeps the checkpoint that the run is rewound to.
        rewound: Whether it is rewound itself, as the run is.
    """

    mask: Any = None
    keeps_checkpoint: bool = True
    rewound: bool = False
