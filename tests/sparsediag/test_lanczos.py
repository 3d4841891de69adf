"""The eigensolver on matrices whose spectrum is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparsediag.lanczos import ORDER, Eigenpairs, eigenpairs

WHICH = tuple(ORDER)
SPECTRA = {
    "simple": np.linspace(-3, 5, 50),
    "one weight": np.array([-2.0]),
    "clustered": np.concatenate([4 + 1e-7 * np.arange(6), -5 + 1e-7 * np.arange(6), [1, 2] * 12]),
    "fourfold": np.concatenate([[7.0] * 4, [-8.0] * 4, np.linspace(-1, 3, 40)]),
    "fourfold and wide": np.concatenate([[7.0] * 4, [-8.0] * 4, np.linspace(-6, 6, 200)]),
    "rank three": np.concatenate([[3, 2, -1], np.zeros(40)]),
    "positive": np.geomspace(1e-6, 1e3, 40),
    "negative": -np.geomspace(1e-6, 1e3, 40),
    "huge": 1e12 * np.linspace(-1, 2, 30),
    "minute": 1e-12 * np.linspace(-1, 2, 30),
    "identity": np.ones(30),
    "zero": np.zeros(30),
}


def _matrix(values: np.ndarray, seed: int = 0, *, first: Tensor | None = None) -> Tensor:
    """A symmetric matrix with these eigenvalues, the first of them with eigenvector `first`."""
    n = len(values)
    draws = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if first is not None:
        draws[:, 0] = first
    q, _ = torch.linalg.qr(draws)
    a = (q * torch.as_tensor(values, dtype=torch.float64)) @ q.T
    return (a + a.T) / 2


def _best(values: np.ndarray, which: str, top: int) -> np.ndarray:
    return values[np.argsort(ORDER[which](values), kind="stable")][:top]


def _check(found: Eigenpairs, a: Tensor, values: np.ndarray, which: str, top: int) -> None:
    size = max(np.abs(values).max(), np.finfo(float).tiny)
    expected = _best(values, which, top)
    came = found.values
    if which == "magnitude":  # the order of 2 and -2 is open
        expected, came = np.abs(expected), np.abs(came)
    np.testing.assert_allclose(came / size, expected / size, rtol=0, atol=1e-10)
    v = found.vectors
    torch.testing.assert_close(v @ v.T, torch.eye(top).double(), rtol=0, atol=1e-10)
    residuals = (v @ a - torch.from_numpy(found.values)[:, None] * v).norm(dim=1).numpy()
    scale = np.maximum(np.abs(found.values), 1e-8 * size)
    np.testing.assert_allclose(found.residuals, residuals / scale, rtol=1e-3, atol=1e-7)
    assert (np.diff(ORDER[which](found.values)) >= -1e-12 * size).all()


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("name", SPECTRA)
def test_known_spectra(name: str, which: str) -> None:
    values = SPECTRA[name]
    a, top = _matrix(values), min(5, len(values))
    found = eigenpairs(lambda v: a @ v, a[0], top=top, which=which, tol=1e-9, max_products=500)
    _check(found, a, values, which, top)
    assert (found.residuals <= 1e-7).all()  # 1e-16 of rounding over 1e-8, the least scale


@given(
    st.lists(st.integers(-4, 4) | st.floats(-4, 4, width=16), min_size=1, max_size=60),
    st.integers(1, 6),
    st.sampled_from(WHICH),
    st.integers(0, 99),
)
def test_any_small_spectrum(spectrum: list[float], top: int, which: str, seed: int) -> None:
    values, top = np.array(spectrum, dtype=float), min(top, len(spectrum))
    a = _matrix(values, seed)
    found = eigenpairs(lambda v: a @ v, a[0], top=top, which=which, tol=1e-10, seed=seed)
    _check(found, a, values, which, top)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_all_the_eigenvalues_of_a_small_matrix(size: int) -> None:
    values = np.linspace(-1, 2, size)
    a = _matrix(values)
    found = eigenpairs(lambda v: a @ v, a[0], top=size)
    _check(found, a, values, "largest", size)


def test_copies_of_every_eigenvalue_are_found() -> None:
    rng = np.random.default_rng(0)
    for seed in range(150):
        values = np.repeat(rng.normal(size=rng.integers(12, 25)), 2)
        a, which = _matrix(values, seed), WHICH[seed % 3]
        found = eigenpairs(lambda v, a=a: a @ v, a[0], top=2, which=which, tol=1e-6, seed=seed)
        np.testing.assert_allclose(found.values, _best(values, which, 2), rtol=1e-5)


def test_a_start_that_is_an_eigenvector_is_left_behind() -> None:
    values = np.linspace(-2, 2, 20)
    start = torch.randn(20, generator=torch.Generator().manual_seed(0))
    a = _matrix(values, first=start.double())
    found = eigenpairs(lambda v: a @ v, a[0], top=3, tol=1e-9, seed=0)
    _check(found, a, values, "largest", 3)
    assert (found.residuals <= 1e-9).all()


def test_a_start_in_an_invariant_subspace_is_left_behind() -> None:
    values = np.concatenate([[9.0, 8.0, 7.0], np.linspace(-1, 1, 27)])
    start = torch.randn(30, generator=torch.Generator().manual_seed(0)).double()
    a = _matrix(values[::-1].copy(), first=start)  # the start is the vector of -1, 9 lies elsewhere
    a = a + 5 * start.outer(start) / start.square().sum()  # and its value is now 6
    found = eigenpairs(lambda v: a @ v, a[0], top=4, tol=1e-9, seed=0)
    np.testing.assert_allclose(found.values[:3], [9, 8, 7], atol=1e-10)


# how many products


@pytest.mark.parametrize("top", [1, 3])
@pytest.mark.parametrize("name", ["simple", "fourfold", "identity", "rank three"])
def test_products_are_counted(name: str, top: int) -> None:
    a, count = _matrix(SPECTRA[name]), 0

    def matvec(v: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return a @ v

    found = eigenpairs(matvec, a[0], top=top)
    assert found.products == count <= len(a) + top


def test_no_more_products_than_allowed_and_the_residuals_say_so() -> None:
    a = _matrix(np.geomspace(1, 1.1, 300))
    for limit in (3, 10, 20):
        found = eigenpairs(lambda v: a @ v, a[0], top=3, tol=1e-6, max_products=limit)
        assert found.products == limit + 3
        assert found.residuals.max() > 1e-6
        v, values = found.vectors, torch.from_numpy(found.values)
        residuals = (v @ a - values[:, None] * v).norm(dim=1) / values.abs()
        np.testing.assert_allclose(found.residuals, residuals, rtol=1e-6)


def test_an_easy_matrix_takes_few_products() -> None:
    a = _matrix(np.concatenate([[100.0, 50.0], np.linspace(-1, 1, 398)]))
    assert eigenpairs(lambda v: a @ v, a[0], top=2).products < 25


def test_a_looser_tolerance_takes_fewer() -> None:
    a = _matrix(SPECTRA["fourfold and wide"])
    loose, tight = (eigenpairs(lambda v: a @ v, a[0], tol=tol) for tol in (1e-2, 1e-9))
    assert loose.products < tight.products
    assert loose.residuals.max() <= 1e-2


def test_progress_counts_up_to_the_end() -> None:
    a, seen = _matrix(SPECTRA["simple"]), []
    found = eigenpairs(lambda v: a @ v, a[0], top=2, progress=lambda *now: seen.append(now))
    assert seen == [(i + 1, 50) for i in range(found.products - 2)]


# seeds and types


def test_the_same_seed_gives_the_same_bits() -> None:
    a = _matrix(SPECTRA["fourfold"])
    state = torch.random.get_rng_state()
    one, same, other = (eigenpairs(lambda v: a @ v, a[0], top=5, seed=s) for s in (1, 1, 2))
    assert one.values.tobytes() == same.values.tobytes()
    assert torch.equal(one.vectors, same.vectors)
    assert one.products == same.products
    assert not torch.equal(one.vectors, other.vectors)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_single_precision_returns_no_ghosts() -> None:
    values = np.concatenate([[100.0, 60.0, 30.0, 10.0], np.linspace(-1, 1, 396)])
    a = _matrix(values).float()
    found = eigenpairs(lambda v: a @ v, a[0], top=6, tol=1e-12, max_products=200)
    assert found.products == 206
    np.testing.assert_allclose(found.values[:4], values[:4], rtol=1e-5)
    assert (found.values[4:] < 1.001).all()
    assert found.vectors.dtype == torch.float32
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(6), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["simple", "fourfold", "rank three", "identity", "zero"])
def test_single_precision_is_as_good_as_its_digits(name: str) -> None:
    values = SPECTRA[name]
    a = _matrix(values).float()
    found = eigenpairs(lambda v: a @ v, a[0], top=5, tol=1e-4)
    size = max(np.abs(values).max(), 1.0)
    np.testing.assert_allclose(found.values, _best(values, "largest", 5), rtol=0, atol=2e-6 * size)


def test_zero_eigenvalues_converge_in_single_precision() -> None:
    a = _matrix(SPECTRA["rank three"]).float()
    found = eigenpairs(lambda v: a @ v, a[0], top=5, tol=1e-3)
    assert (found.residuals <= 1e-3).all()


# what is refused


@pytest.mark.parametrize("top", [0, 5])
def test_more_pairs_than_weights_are_refused(top: int) -> None:
    a = torch.eye(4)
    message = f"top={top} eigenvalues asked of a problem with 4 live weights"
    with pytest.raises(ValueError, match=message):
        eigenpairs(lambda v: a @ v, a[0], top=top)
