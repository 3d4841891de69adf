"""Measurements that the figures are drawn from, and their results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from training.config import Run

# Results of an item by label, a tuple that ends with the seed, mostly (kind, density, seed).
Results = Mapping[Any, Any]
ALL_SEEDS = range(6)  # the papers and most scales train fewer


@dataclass(frozen=True)
class Measurement:
    """A diagnostic of a training.

    Attributes:
        run: The training as the paper has it; a scale may replace it by a smaller one.
        diagnostic: One of `sparsediag.diagnostics`, or "history" for the records of the training.
        split: Part of the data that is measured.
        when: "best" for the best epoch, "early" for the papers' epoch 5 of 180.
        options: Options of the diagnostic, as pairs.
        along: For a perturbation: the spectrum whose eigenvectors are followed.
    """

    run: Run
    diagnostic: str = "history"
    split: str = "train"
    when: Literal["best", "early"] = "best"
    options: tuple[tuple[str, Any], ...] = ()
    along: Measurement | None = None

    @classmethod
    def along_top_eigenvector(cls, run: Run) -> Measurement:
        """Return the test loss along the top Hessian eigenvector of the training loss."""
        top = cls(run, "spectrum", options=(("top", 1),))
        return cls(run, "perturbation", split="test", along=top)


def history_grid(
    run: Callable[..., Run], kinds: Iterable[str], densities: Iterable[float], **options: Any
) -> dict[tuple[str, float, int], Measurement]:
    """Return the histories of all seeds of each kind and density, by (kind, density, seed).

    Args:
        run: Returns the training for a kind, density and seed.
        kinds: Kinds of trainings.
        densities: Shares of the weights that remain.
        options: Further options of `run`.
    """
    densities = tuple(densities)
    return {
        (kind, density, seed): Measurement(run(kind, density, seed, **options))
        for kind in kinds
        for density in densities
        for seed in ALL_SEEDS
    }


def by_seed(results: Results, *key: Any) -> dict[int, Any]:
    """Return the results whose label is the key and a seed, ordered by seed."""
    seed_results = {label[-1]: result for label, result in results.items() if label[:-1] == key}
    return dict(sorted(seed_results.items()))
