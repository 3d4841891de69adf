"""Test accuracies of trainings; results have labels (kind, density, seed)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from figures import measurement
from figures.measurement import Results
from sparsediag.core.estimate import Estimate
from sparsediag.plotting.accuracy import sparsity
from sparsediag.plotting.tables import Table


def accuracy(history: Sequence[Mapping[str, Any]]) -> float:
    """Return the test accuracy at the best validation epoch, in percent."""
    return 100 * float(next(row["test_accuracy"] for row in history if row.get("best")))


def by_seed(results: Results, kind: Any, density: float) -> dict[int, float]:
    """Return the accuracy of each seed that was trained."""
    histories = measurement.by_seed(results, kind, density)
    return {seed: accuracy(history) for seed, history in histories.items()}


def estimate(results: Results, kind: Any, density: float) -> Estimate | None:
    """Return the mean accuracy over the seeds, or None if none was trained."""
    values = by_seed(results, kind, density).values()
    return Estimate.of(values) if values else None


def best_estimate(results: Results, kinds: Iterable[Any], density: float) -> Estimate | None:
    """Return the estimate of the kind with the highest mean."""
    trained = [e for kind in kinds if (e := estimate(results, kind, density))]
    return max(trained, key=lambda e: e.mean, default=None)


def trained_densities(results: Results, densities: Iterable[float]) -> list[float]:
    """Return the densities for which there is any result."""
    trained = {density for _, density, _ in results}
    return [density for density in densities if density in trained]


def sparsity_column(density: float) -> str:
    """Return the head of a table's column: "90 %", or "dense"."""
    return "dense" if density == 1 else f"{sparsity(density)} %"


def comparison(
    results: Results,
    paper: Mapping[Any, Sequence[float]],
    densities: Sequence[float],
    *,
    title: str,
    head: str,
    value: Callable[[Results, Any, float], Estimate | None] = estimate,
) -> Table:
    """Return a table of the paper's numbers and ours at each density that was trained.

    Args:
        results: By (kind, density, seed).
        paper: The paper's numbers for each kind, in the order of the densities.
        densities: The paper's densities.
        title: Title of the table.
        head: Head of the first column, which names the kind; tuples are joined by " + ".
        value: Returns our number for a kind and density.
    """
    trained = trained_densities(results, densities)
    rows = [
        (
            kind if isinstance(kind, str) else " + ".join(part for part in kind if part != "base"),
            [numbers[densities.index(density)] for density in trained],
            [value(results, kind, density) for density in trained],
        )
        for kind, numbers in paper.items()
    ]
    return Table.paper_and_here(title, head, [sparsity_column(d) for d in trained], rows)
