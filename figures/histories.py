"""Values that a training records after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

Row = Mapping[str, Any]
History = Sequence[Row]
Value = Callable[[Row], float]


def eigenvalue(row: Row) -> float:
    """Return the top Hessian eigenvalue."""
    return float(row["eigenvalue"])


def scaled_eigenvalue(row: Row) -> float:
    """Return the top Hessian eigenvalue times the squared norm of the weights."""
    return eigenvalue(row) * float(row["weight_norm"]) ** 2


def positive(history: History, value: Value) -> np.ndarray:
    """Return a value after each epoch; NaN where it is not positive, for a log axis."""
    values = [value(row) for row in history]
    return np.array([number if number > 0 else np.nan for number in values])


def log10(history: History, value: Value) -> np.ndarray:
    """Return the decimal logarithm of a value after each epoch; NaN where it is not positive."""
    logs: np.ndarray = np.log10(positive(history, value))
    return logs


def drops(history: History) -> list[int]:
    """Return the epochs, counted from 0, with a lower learning rate than the one before."""
    return [int(i) + 1 for i in np.flatnonzero(np.diff([row["lr"] for row in history]))]


def before_first_drop(history: History) -> History:
    """Return the epochs before the first drop of the learning rate."""
    return history[: min(drops(history), default=len(history))]


def mark_drops(ax: Axes, history: History) -> None:
    """Draw a dotted line at each drop of the learning rate."""
    for epoch in drops(history):
        ax.axvline(epoch + 0.5, color="#999999", lw=0.8, ls=":", zorder=0)
