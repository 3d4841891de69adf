"""The density of a spectrum, against spectra that are known."""

from __future__ import annotations

from functools import cache
from typing import Any

import cases
import numpy as np
import pytest
import torch
from cases import symmetric
from scipy.stats import wasserstein_distance
from torch import Tensor

from sparsediag.core.rng import stream
from sparsediag.curvature.slq import density, quadrature

RNG = np.random.default_rng(0)
SPECTRA = {
    "bulk": np.linspace(-3, 5, 300),
    "normal": RNG.normal(size=300),
    "outliers": np.concatenate([[40.0, 25, 18, -12], RNG.normal(size=296)]),
    "half zero": np.concatenate([np.zeros(150), RNG.exponential(size=150)]),
    "two clusters": np.concatenate([RNG.normal(-4, 0.1, 100), RNG.normal(3, 0.1, 200)]),
}


def _quadrature(a: Tensor, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    return quadrature(lambda v: a @ v, a[0], **options)


@cache
def _known(name: str) -> Tensor:
    return symmetric(SPECTRA[name])


def _distance(a: Tensor, **options: int) -> float:
    """Wasserstein distance to the dense spectrum, over the spectral range."""
    values = torch.linalg.eigvalsh(a).numpy()
    nodes, weights = _quadrature(a, **options)
    distance = wasserstein_distance(nodes.ravel(), values, weights.ravel())
    return float(distance / np.ptp(values))


# nodes and weights


@pytest.mark.parametrize("steps", [1, 5, 12])
@pytest.mark.parametrize("name", SPECTRA)
def test_moments_are_exact(name: str, steps: int) -> None:
    a = _known(name) / np.abs(SPECTRA[name]).max()
    nodes, weights = _quadrature(a, probes=5, steps=steps, seed=3)
    assert nodes.shape == weights.shape == (5, steps)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-12)
    generator = stream("density", 3)
    for row, shares in zip(nodes, weights, strict=True):
        v = torch.randn(1, len(a), generator=generator)[0].double()
        v = power = v / v.norm()
        for k in range(2 * steps):
            np.testing.assert_allclose((shares * row**k).sum(), float(v @ power), atol=1e-12)
            power = a @ power


@pytest.mark.parametrize("name", SPECTRA)
def test_the_mean_moments_are_those_of_the_trace(name: str) -> None:
    values = SPECTRA[name]
    a = _known(name)
    nodes, weights = _quadrature(a, probes=80, steps=4)
    for k in range(1, 6):
        each = (weights * nodes**k).sum(1)
        error = each.std(ddof=1) / np.sqrt(len(each))
        assert abs(each.mean() - (values**k).mean()) < 4 * error
        assert error < 0.2 * np.sqrt((values ** (2 * k)).mean())


def test_nodes_lie_within_the_spectrum() -> None:
    values = SPECTRA["outliers"]
    a = symmetric(values)
    nodes, _ = _quadrature(a, probes=3, steps=60)
    assert nodes.min() >= values.min() - 1e-9
    assert nodes.max() <= values.max() + 1e-9
    np.testing.assert_allclose(nodes.max(1), values.max(), rtol=1e-9)


# against dense spectra


@pytest.mark.parametrize("name", SPECTRA)
def test_the_density_is_close_to_the_dense_spectrum(name: str) -> None:
    assert _distance(_known(name), probes=16, steps=20) < 0.03


@pytest.mark.parametrize("name", ["tanh_mlp", "softmax_regression", "masked_cnn"])
def test_the_density_is_close_to_that_of_a_dense_hessian(name: str) -> None:
    assert _distance(cases.hessian_of(name), probes=12) < 0.03


@pytest.mark.parametrize("rank", [0, 1, 3, 10])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_matrix_of_low_rank_ends_a_row_early(rank: int, dtype: torch.dtype) -> None:
    values = np.concatenate([np.arange(1.0, rank + 1), np.zeros(100 - rank)])
    a = symmetric(values).to(dtype)
    nodes, weights = _quadrature(a, probes=40, steps=14)
    assert np.isfinite(nodes).all()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    zero = (weights * (np.abs(nodes) < 1e-3)).sum(1)
    assert abs(zero.mean() - (1 - rank / 100)) < 0.04
    for value in range(1, rank + 1):
        near = (weights * (np.abs(nodes - value) < 1e-3)).sum(1)
        assert 0.003 < near.mean() < 0.03


def test_a_matrix_smaller_than_the_steps_is_known_whole() -> None:
    values, progress = np.array([-1.0, 2, 2, 5]), []
    a = symmetric(values)
    nodes, weights = _quadrature(a, probes=3, steps=7, progress=lambda *at: progress.append(at))
    for row, shares in zip(nodes, weights, strict=True):
        real = shares > 1e-10
        np.testing.assert_allclose(np.sort(row[real]), [-1, 2, 5], atol=1e-10)
    assert (weights[:, 4:] == 0).all()
    assert [at for at, _ in progress][:3] == [1, 2, 3]
    assert {end for _, end in progress} == {21}


# the band


def test_the_error_covers_the_mean_over_many_probes() -> None:
    a = _known("outliers")
    nodes, weights = _quadrature(a, probes=160, steps=12)
    places = np.linspace(-14, 42, 57)
    mean, error = density(nodes, weights, places, 1.5)
    groups = [slice(i, i + 16) for i in range(0, 160, 16)]
    off = []
    for group in groups:
        some, theirs = density(nodes[group], weights[group], places, 1.5)
        off.append((some - mean)[mean > 1e-4] / theirs[mean > 1e-4])
    share = np.mean(np.abs(off) < 2)
    assert 0.85 < share < 0.99
    assert np.mean(np.abs(off) < 0.5) < 0.55  # and it is no wider than it must be
    whole = np.exp(-(((places[:, None] - SPECTRA["outliers"]) / 1.5) ** 2) / 2)
    whole = whole.mean(1) / (1.5 * np.sqrt(2 * np.pi))
    assert np.mean(np.abs(whole - mean) < 3 * error + 1e-3 * whole.max()) > 0.9


def test_the_density_integrates_to_one() -> None:
    a = _known("two clusters")
    places = np.linspace(-8, 8, 801)
    mean, error = density(*_quadrature(a), places, 0.2)
    assert np.trapezoid(mean, places) == pytest.approx(1, abs=1e-6)
    assert (mean >= 0).all()
    assert (error >= 0).all()
    left = places < 0
    assert np.trapezoid(mean[left], places[left]) == pytest.approx(1 / 3, abs=0.05)


def test_the_error_shrinks_with_the_probes() -> None:
    a = _known("bulk")
    nodes, weights = _quadrature(a, probes=128, steps=6)
    places = np.linspace(-3, 5, 41)
    few, many = (density(nodes[:n], weights[:n], places, 0.5)[1].mean() for n in (8, 128))
    assert 2.5 < few / many < 6  # 4, the root of 16


# what is refused, seeds and types


@pytest.mark.parametrize(("probes", "steps"), [(0, 5), (1, 5), (2, 0)])
def test_too_few_probes_or_steps_are_refused(probes: int, steps: int) -> None:
    a = torch.eye(4)
    with pytest.raises(ValueError, match=f"probes={probes}, steps={steps}: need 2 probes"):
        _quadrature(a, probes=probes, steps=steps)


def test_products_are_counted_by_the_progress() -> None:
    a, count, seen = _known("normal"), 0, []

    def matvec(v: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return a @ v

    quadrature(matvec, a[0], probes=3, steps=5, progress=lambda *at: seen.append(at))
    assert count == 15
    assert seen == [(i + 1, 15) for i in range(15)]


def test_the_same_seed_gives_the_same_bits() -> None:
    a = _known("normal")
    state = torch.random.get_rng_state()
    one, same, other = (_quadrature(a, steps=9, seed=s) for s in (1, 1, 2))
    for first, second in zip(one, same, strict=True):
        assert first.tobytes() == second.tobytes()
    assert not np.allclose(one[0], other[0])
    assert not np.allclose(one[0][0], one[0][1])  # each start is its own
    assert torch.equal(torch.random.get_rng_state(), state)


def test_single_precision_gives_the_same_density() -> None:
    a = _known("normal")
    double = _quadrature(a, steps=9)
    b = a.float()
    single = _quadrature(b, steps=9)
    for one, other in zip(double, single, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
