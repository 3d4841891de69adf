"""The mean of a few values with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % confidence interval (Student's t).

    Attributes:
        mean: The mean.
        half: Half the width of the interval; infinite for a single value.
        count: Number of values.

    >>> print(Estimate.of([1.0, 2.0, 3.0]))
    2.00 ± 2.48
    """

    mean: float
    half: float = math.inf
    count: int = 1

    @classmethod
    def of(cls, values: Iterable[float]) -> Estimate:
        """Estimate the mean of independent values.

        Raises:
            ValueError: If there is no value.
        """
        from scipy.special import stdtrit

        sample = np.array(list(values), dtype=float)
        if not len(sample):
            raise ValueError("no values: need at least one")
        if len(sample) == 1:
            return cls(float(sample[0]))
        standard_error = sample.std(ddof=1) / math.sqrt(len(sample))
        half = float(stdtrit(len(sample) - 1, 0.975) * standard_error)
        return cls(float(sample.mean()), half, len(sample))

    def format(self, number_format: str = ".2f", separator: str = " ± ") -> str:
        """Return the mean, with half the interval if there is one."""
        half = (
            f"{separator}{self.half:{number_format.lstrip('+')}}"
            if math.isfinite(self.half)
            else ""
        )
        return f"{self.mean:{number_format}}{half}"

    def __str__(self) -> str:
        return self.format()
