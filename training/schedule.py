"""Schedules: what changes from epoch to epoch, as fractions of the training.

Fractions keep the papers' proportions (180 epochs, drops at 90 and 135) when a run is shortened.
"""

from __future__ import annotations


def epoch_at(fraction: float, epochs: int) -> int:
    """The first epoch, counted from 0, after that fraction of the training.

    >>> epoch_at(0.5, 180), epoch_at(0.75, 180)
    (90, 135)
    """
    return round(fraction * epochs)


def decay(drops: tuple[float, ...], factor: float, epoch: int, epochs: int) -> float:
    """Return the factor of the learning rate: `factor` once for each drop that has passed.

    >>> [round(decay((0.5, 0.75), 0.1, e, 180), 3) for e in (89, 90, 135)]
    [1.0, 0.1, 0.01]
    """
    return factor ** sum(epoch >= epoch_at(drop, epochs) for drop in drops)
