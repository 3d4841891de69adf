"""The search of the complement misses no more often than it says, and bounds the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import symmetric
from scipy.stats import binomtest
from torch import Tensor

from sparsediag.curvature.krylov import Krylov
from sparsediag.curvature.lanczos import ORDER
from sparsediag.curvature.probe import MAX_CHANCE, Probe, nearly_converged, probe_complement

SIGNS = {"largest": np.ones(100), "smallest": -np.ones(100), "magnitude": (-1.0) ** np.arange(100)}


def _krylov(a: Tensor, seed: int) -> Krylov:
    return Krylov(lambda v: a @ v, a[0], torch.Generator().manual_seed(seed))


def _probe(krylov: Krylov, top: int, which: str, **options: Any) -> Probe:
    """Probe beside the pairs of this basis, or those that have nearly converged."""
    order = ORDER[which]
    ritz = krylov.ritz(order)
    if which == "magnitude":
        margin = 1e-3 * abs(float(ritz.values[top - 1]))
        krylov.shrink(ritz, nearly_converged(ritz, top, margin))
    return probe_complement(
        krylov, krylov.ritz(order), top, order, **{"tol": 1e-3, "limit": 60, **options}
    )


@pytest.mark.parametrize("chance", [0.5, 0.1])
@pytest.mark.parametrize("which", ORDER)
def test_an_eigenvalue_is_missed_no_more_often_than_stated(which: str, chance: float) -> None:
    values = np.concatenate([[2.0, 1.2, 1.5], np.linspace(-1, 1, 97)]) * SIGNS[which]
    a, misses, trials = torch.from_numpy(values).diag(), 0, 80
    for seed in range(trials):
        krylov = _krylov(a, seed)
        krylov.grow(torch.eye(100).double()[:2])  # 1.5 was missed
        probe = _probe(krylov, 2, which, max_chance=chance)
        assert probe.missed or probe.chance <= chance
        misses += not probe.missed
    assert binomtest(misses, trials, chance, alternative="greater").pvalue > 1e-3
    assert misses > 0 or chance < 0.2  # nor is the statement empty


@pytest.mark.parametrize(("size", "which"), [(50, "smallest"), (50, "magnitude"), (400, "largest")])
def test_a_probe_finds_what_a_krylov_space_misses(size: int, which: str) -> None:
    rng, sign = np.random.default_rng(size), -1 if which == "smallest" else 1
    a = symmetric(sign * np.concatenate([[10.0, 8, 6], 0.9 * rng.normal(size=size - 3)]))
    values, vectors = torch.linalg.eigh(a)
    hidden = vectors[:, (values - 8 * sign).abs().argmin()]

    def without(w: Tensor | None) -> Tensor:
        assert w is not None
        return w - (w @ hidden)[:, None] * hidden

    for seed in range(20):
        krylov = _krylov(a, seed)
        krylov.grow(without(krylov.random(1)))
        for _ in range(11):
            krylov.grow(without(krylov.next_directions()))
        seen = krylov.ritz(ORDER[which]).values[:2]
        np.testing.assert_allclose(seen, [10 * sign, 6 * sign], atol=0.05)
        products = krylov.products
        probe = _probe(krylov, 2, which)
        assert probe.count == krylov.products - products
        assert probe.missed
        assert 6 < sign * probe.best < 8 + 1e-9


@pytest.mark.parametrize("which", ORDER)
def test_no_other_eigenvalue_is_better_than_the_bound(which: str) -> None:
    """The basis holds parts of eigenvectors, also of those that are not wanted."""
    rng, level, told = np.random.default_rng(0), lambda x: -ORDER[which](x), 0
    for seed in range(10):
        values = np.sort(rng.exponential(1, 100))[::-1] * SIGNS[which]
        krylov = _krylov(symmetric(values, seed), seed)
        directions: Tensor | None = krylov.random(1)
        while directions is not None and len(krylov) < rng.integers(20, 60):
            krylov.grow(directions)
            directions = krylov.next_directions()
        probe = _probe(krylov, 3, which)
        if not probe.missed and probe.chance <= MAX_CHANCE:
            assert np.sort(level(values))[-4] <= level(np.array(probe.bound))
            assert level(np.array(probe.bound)) < 1.002 * np.sort(level(values))[-3]
            told += 1
    assert told > 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_complement_of_rounding_is_certified(dtype: torch.dtype) -> None:
    a = symmetric(np.concatenate([[3.0, 2, 1], np.zeros(197)])).to(dtype)
    krylov = _krylov(a, 0)
    krylov.grow(krylov.random(5))
    krylov.grow(krylov.random(1))
    while (directions := krylov.next_directions(5)) is not None:
        krylov.grow(directions)
    probe = _probe(krylov, 5, "largest")
    assert not probe.missed
    assert probe.chance <= MAX_CHANCE
    assert probe.count < 15
    assert 0 <= probe.bound < 1e-4


def test_too_few_products_leave_the_chance_open() -> None:
    krylov = _krylov(torch.linspace(-1, 1, 100).double().diag(), 0)
    krylov.grow(torch.eye(100).double()[-1:])
    probe = _probe(krylov, 1, "largest", limit=5)
    assert probe.count == 5
    assert MAX_CHANCE < probe.chance <= 1
    assert np.isnan(probe.bound)
