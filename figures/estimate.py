"""Estimate: the mean of a few trainings, and how far it may be off."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval (Student's t).

    Attributes:
        mean: The mean.
        half: Half the width of the interval; infinite where there is one value only.
        count: Number of values.

    >>> print(Estimate.of([1.0, 2.0, 3.0]))
    2.00 ± 2.48
    """

    mean: float
    half: float = math.inf
    count: int = 1

    @classmethod
    def of(cls, values: Iterable[float]) -> Estimate:
        """The mean of values that are independent of each other.

        Raises:
            ValueError: If there is none.
        """
        found = np.array(list(values), dtype=float)
        if not len(found):
            raise ValueError("no values: need one at least")
        if len(found) == 1:
            return cls(float(found[0]))
        spread = found.std(ddof=1) / math.sqrt(len(found))
        half = float(stdtrit(len(found) - 1, 0.975) * spread)
        return cls(float(found.mean()), half, len(found))

    def told(self, form: str = ".2f", between: str = " ± ") -> str:
        """The mean, and half the interval where there is one."""
        half = f"{between}{self.half:{form.lstrip('+')}}" if math.isfinite(self.half) else ""
        return f"{self.mean:{form}}{half}"

    def __str__(self) -> str:
        return self.told()
