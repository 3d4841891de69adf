"""The eigensolver on matrices whose spectrum is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import symmetric
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from sparsediag.curvature.lanczos import ORDER, Eigenpairs, eigenpairs
from sparsediag.curvature.probe import MAX_CHANCE, Probe

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


every_block = pytest.mark.parametrize("block", [1, 2, 3])


def _solve(a: Tensor, **options: Any) -> Eigenpairs:
    return eigenpairs(lambda v: a @ v, a[0], **options)


def _best(values: np.ndarray, which: str, top: int) -> np.ndarray:
    return values[np.argsort(ORDER[which](values), kind="stable")][:top]


def _residuals(found: Eigenpairs, a: Tensor) -> np.ndarray:
    """Explicit and relative, a value counting as 1e-8 of the largest at least."""
    values = torch.from_numpy(found.values).to(a)
    misses = (found.vectors @ a - values[:, None] * found.vectors).norm(dim=1)
    size = max(float(torch.linalg.eigvalsh(a).abs().max()), np.finfo(float).tiny)
    scale = torch.finfo(a.dtype).eps ** 0.5 * size
    return misses.double().numpy() / np.maximum(np.abs(found.values), scale)


def _check(found: Eigenpairs, a: Tensor, values: np.ndarray, which: str, top: int) -> None:
    size = max(np.abs(values).max(), np.finfo(float).tiny)
    expected = _best(values, which, top)
    came = found.values
    if which == "magnitude":  # the order of 2 and -2 is open
        expected, came = np.abs(expected), np.abs(came)
    np.testing.assert_allclose(came / size, expected / size, rtol=0, atol=1e-10)
    v = found.vectors
    torch.testing.assert_close(v @ v.T, torch.eye(top).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.products / size, v @ a / size, rtol=0, atol=1e-12)
    assert (np.diff(ORDER[which](found.values)) >= -1e-12 * size).all()
    assert found.asymmetry <= 1e-12
    assert not found.probe.missed


@every_block
@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("name", SPECTRA)
def test_known_spectra(name: str, which: str, block: int) -> None:
    values = SPECTRA[name]
    a, top = symmetric(values), min(5, len(values))
    found = _solve(a, top=top, which=which, tol=1e-9, max_matvecs=500, block_size=block)
    _check(found, a, values, which, top)
    assert (_residuals(found, a) <= 1e-7).all()  # 1e-16 of rounding over 1e-8, the least scale


@given(
    st.lists(st.integers(-4, 4) | st.floats(-4, 4, width=16), min_size=1, max_size=60),
    st.integers(1, 6),
    st.sampled_from(WHICH),
    st.integers(0, 99),
    st.integers(1, 3),
)
@example([0, 0, 0, 0, 0, 1, 1, -1, 2, 0, 0, 0, 2], 2, "smallest", 0, 2)  # a part that is rounding
@example([0, 0, 0, 0, 0, 2, 2, 3, 0, 0, 1, 0, 1, 2**-24], 1, "largest", 0, 3)
@example([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2**-24], 1, "largest", 0, 3)
def test_any_small_spectrum(
    spectrum: list[float], top: int, which: str, seed: int, block: int
) -> None:
    values, top = np.array(spectrum, dtype=float), min(top, len(spectrum))
    a = symmetric(values, seed)
    found = _solve(a, top=top, which=which, tol=1e-10, seed=seed, block_size=block)
    _check(found, a, values, which, top)


@every_block
@pytest.mark.parametrize("copies", [2, 3, 4])
def test_copies_of_the_best_are_found_in_a_large_matrix(copies: int, block: int) -> None:
    values = np.concatenate([[9.0] * copies, [6, 5, 4.5, 4], np.linspace(-3, 3, 120)])
    a, missed = symmetric(values, copies), 0
    for top in range(2, 7):
        for seed in range(2):
            found = _solve(
                a,
                top=top,
                tol=1e-4,
                max_matvecs=500,
                seed=seed,
                block_size=block,
            )
            error = np.abs(found.values - values[:top])
            assert (error < 1e-6).all() or (error > 0.5).any()  # right or missed, never in between
            missed += bool((error > 0.5).any())
            assert found.num_matvecs < 130
    assert not missed  # each has a chance below 1e-4


def test_the_space_of_the_search_holds_nothing_better_than_what_is_returned() -> None:
    values = np.concatenate([[9.0] * 3, [6, 5, 4.5, 4], np.linspace(-3, 3, 200)])
    a = symmetric(values, 3)
    for seed in (0, 1, 45, 65, 91):
        multiplied: list[Tensor] = []

        def matvec(v: Tensor, multiplied: list[Tensor] = multiplied) -> Tensor:
            multiplied.append(v)
            return a @ v

        found = eigenpairs(matvec, a[0], top=3, tol=1e-6, seed=seed)
        q = torch.linalg.qr(torch.stack(multiplied).T).Q
        best = torch.linalg.eigvalsh(q.T @ a @ q).flip(0)[:3].numpy()
        np.testing.assert_allclose(found.values, best, rtol=1e-6)


def test_a_start_in_an_invariant_subspace_is_left_behind() -> None:
    values = np.concatenate([[9.0, 8.0, 7.0], np.linspace(-1, 1, 27)])
    start = torch.randn(30, generator=torch.Generator().manual_seed(0)).double()
    a = symmetric(
        values[::-1].copy(), first=start
    )  # the start is the vector of -1, 9 lies elsewhere
    a = a + 5 * start.outer(start) / start.square().sum()  # and its value is now 6
    found = _solve(a, top=4, tol=1e-9, start=start[None])
    np.testing.assert_allclose(found.values[:3], [9, 8, 7], atol=1e-10)


# restarts and starts


@every_block
@pytest.mark.parametrize("which", WHICH)
def test_a_small_basis_converges_to_the_same_pairs(which: str, block: int) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([[10.0, 9, 8.5, -12, -9.5, -9], 1.5 * rng.normal(size=294)])
    a = symmetric(values)
    free, tight = (
        _solve(
            a,
            top=3,
            which=which,
            tol=1e-8,
            max_matvecs=1000,
            block_size=block,
            max_basis=basis,
        )
        for basis in (None, 12)
    )
    _check(tight, a, values, which, 3)
    np.testing.assert_allclose(tight.values, free.values, rtol=0, atol=1e-12)
    assert (_residuals(tight, a) <= 1.1e-8).all()
    assert (
        free.num_matvecs < tight.num_matvecs < 2 * free.num_matvecs
    )  # it did restart, at a modest price
    assert tight.basis_size < 12 + tight.probe.count + block


@every_block
def test_a_close_cluster_survives_many_restarts(block: int) -> None:
    values = np.concatenate([[4.0, 3.99, 3.98], np.linspace(-3, 3.5, 200)])
    a = symmetric(values)
    found = _solve(a, top=3, tol=1e-7, max_matvecs=3000, block_size=block, max_basis=20)
    _check(found, a, values, "largest", 3)
    assert found.num_matvecs > 3 * 20


@every_block
def test_a_basis_too_small_for_the_pairs_is_refused(block: int) -> None:
    a = symmetric(SPECTRA["simple"])
    least = 4 + 2 * block
    message = f"max_basis={least - 1}: need {least} vectors or more for top=4"
    with pytest.raises(ValueError, match=message):
        _solve(a, top=4, block_size=block, max_basis=least - 1)
    found = _solve(a, top=4, block_size=block, max_basis=least, tol=1e-6, max_matvecs=2000)
    np.testing.assert_allclose(found.values, SPECTRA["simple"][::-1][:4], atol=1e-9)


@every_block
@pytest.mark.parametrize("top", [1, 3])
def test_a_start_from_a_similar_matrix_takes_fewer_products(top: int, block: int) -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([[20.0, 14, 10, 7, 5], 0.8 * rng.normal(size=395)])
    a = symmetric(values)
    shift = torch.from_numpy(rng.normal(size=a.shape))
    near = a + 1e-4 * (shift + shift.T) / 2
    cold = warm = 0
    for seed in range(4):
        old = _solve(near, top=top, seed=seed, block_size=block)
        new = _solve(a, top=top, seed=seed, block_size=block, start=old.vectors)
        again = _solve(a, top=top, seed=seed, block_size=block)
        np.testing.assert_allclose(new.values, values[:top], rtol=1e-5)
        cold += again.num_matvecs - again.probe.count
        warm += new.num_matvecs - new.probe.count
    assert warm <= 0.7 * cold


# the probe of the complement


@every_block
@pytest.mark.parametrize("which", WHICH)
def test_little_stays_hidden_when_the_outliers_stand_apart(which: str, block: int) -> None:
    values = np.concatenate([[20.0, 15, 12, -22, -16, -13], np.linspace(-2, 2, 294)])
    a = symmetric(values)
    for seed in range(4):
        found = _solve(a, top=3, which=which, seed=seed, block_size=block)
        assert not found.probe.missed
        assert 0 < found.probe.chance <= MAX_CHANCE
        assert 0 < found.probe.count < found.num_matvecs / 2 + 1
        worst = values[np.argmin(np.abs(values - found.probe.best))]  # what it saw is there
        assert ORDER[which](worst) > ORDER[which](found.values[-1])


def test_a_wanted_pair_at_the_edge_of_the_bulk_takes_a_long_probe() -> None:
    a = symmetric(np.linspace(-2, 2, 300))
    found = _solve(a, top=1, tol=1e-2)
    assert found.probe.chance <= MAX_CHANCE
    assert found.probe.count > 40
    assert _solve(a, top=1, tol=1e-2, max_matvecs=found.num_matvecs // 2).probe.chance > 0.1


def test_a_search_that_ends_before_its_probe_says_so() -> None:
    a = symmetric(np.geomspace(1, 1.1, 300))
    found = _solve(a, top=3, tol=1e-6, max_matvecs=10)
    assert np.isnan(found.probe.best)
    assert found.probe == Probe(found.probe.best, missed=False, chance=1.0, count=0)


def test_the_lowest_value_seen_is_that_of_an_eigenvalue_or_above_one() -> None:
    found = _solve(symmetric(np.concatenate([[10.0, 8, -7], np.linspace(-1, 1, 97)])), top=2)
    assert -7 - 1e-12 <= found.lowest < -6.9


@pytest.mark.parametrize("skew", [0.01, 0.3])
def test_the_asymmetry_of_the_operator_is_told(skew: float) -> None:
    a = symmetric(np.linspace(-3, 5, 80))
    draws = torch.randn(80, 80, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    b = a + skew * (draws - draws.T)
    found = _solve(b, top=3, max_matvecs=40)
    assert skew / 10 < found.asymmetry < 10 * skew


# how many products


@every_block
@pytest.mark.parametrize("top", [1, 3])
@pytest.mark.parametrize("name", ["simple", "fourfold", "identity", "rank three"])
def test_products_are_counted(name: str, top: int, block: int) -> None:
    a, count = symmetric(SPECTRA[name]), 0

    def matvec(v: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return a @ v

    found = eigenpairs(matvec, a[0], top=top, block_size=block)
    assert found.num_matvecs == count <= len(a)
    assert found.probe.count < count


@every_block
def test_no_more_products_than_allowed_and_the_products_tell_the_residuals(block: int) -> None:
    a = symmetric(np.geomspace(1, 1.1, 300))
    for limit in (3, 10, 20):
        found = _solve(a, top=3, tol=1e-6, max_matvecs=limit, block_size=block)
        assert found.num_matvecs == limit
        assert _residuals(found, a).max() > 1e-6
        torch.testing.assert_close(found.products, found.vectors @ a, rtol=0, atol=1e-13)


def test_a_block_wider_than_the_allowance_is_cut() -> None:
    a = symmetric(np.geomspace(1, 1.1, 300))
    assert _solve(a, max_matvecs=1, block_size=3).num_matvecs == 1


@every_block
def test_an_easy_matrix_takes_few_products(block: int) -> None:
    a = symmetric(np.concatenate([[100.0, 50.0], np.linspace(-1, 1, 398)]))
    assert _solve(a, top=2, block_size=block).num_matvecs < 25


@every_block
def test_a_looser_tolerance_takes_fewer(block: int) -> None:
    a = symmetric(SPECTRA["fourfold and wide"])
    loose, tight = (_solve(a, tol=t, block_size=block) for t in (1e-2, 1e-9))
    assert loose.num_matvecs < tight.num_matvecs
    assert _residuals(loose, a).max() <= 1e-2


@every_block
def test_progress_counts_up_to_the_end(block: int) -> None:
    a, seen = symmetric(np.linspace(-3, 5, 200)), []
    found = _solve(a, top=2, block_size=block, progress=lambda *now: seen.append(now))
    products, limits = zip(*seen, strict=True)
    assert set(limits) == {220}
    assert products[0] == block
    assert (np.diff(products) > 0).all()
    assert products[-1] == found.num_matvecs - found.probe.count
    assert block > 1 or products == tuple(range(1, len(products) + 1))


# seeds and types


@every_block
def test_the_same_seed_gives_the_same_bits(block: int) -> None:
    a = symmetric(SPECTRA["fourfold and wide"])
    state = torch.random.get_rng_state()
    one, same, other = (_solve(a, top=5, seed=s, block_size=block) for s in (1, 1, 2))
    assert one.values.tobytes() == same.values.tobytes()
    assert torch.equal(one.vectors, same.vectors)
    assert torch.equal(one.products, same.products)
    assert one.num_matvecs == same.num_matvecs
    assert one.probe == same.probe
    assert not torch.equal(one.vectors, other.vectors)
    assert torch.equal(torch.random.get_rng_state(), state)


@every_block
def test_single_precision_returns_no_ghosts(block: int) -> None:
    values = np.concatenate([[100.0, 60.0, 30.0, 10.0], np.linspace(-1, 1, 396)])
    a = symmetric(values).float()
    found = _solve(a, top=6, tol=1e-12, max_matvecs=200, block_size=block)
    assert found.num_matvecs == 200
    np.testing.assert_allclose(found.values[:4], values[:4], rtol=1e-5)
    assert (found.values[4:] < 1.001).all()
    assert found.vectors.dtype == found.products.dtype == torch.float32
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.products, found.vectors @ a, rtol=0, atol=1e-3)


@every_block
@pytest.mark.parametrize("name", ["simple", "fourfold", "rank three", "identity", "zero"])
def test_single_precision_is_as_good_as_its_digits(name: str, block: int) -> None:
    values = SPECTRA[name]
    a = symmetric(values).float()
    found = _solve(a, top=5, tol=1e-4, block_size=block)
    size = max(np.abs(values).max(), 1.0)
    np.testing.assert_allclose(found.values, _best(values, "largest", 5), rtol=0, atol=2e-6 * size)


# what is refused


@pytest.mark.parametrize("top", [0, 5])
def test_more_pairs_than_weights_are_refused(top: int) -> None:
    a = torch.eye(4)
    message = f"top={top}: need 1 or more, and at most one for each of 4 live weights"
    with pytest.raises(ValueError, match=message):
        _solve(a, top=top)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 0}, "block_size=0: need 1 direction a step or more"),
        ({"max_matvecs": 1}, "max_matvecs=1: need at least one for each of 2 pairs"),
        ({"which": "biggest"}, "biggest"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    a = torch.eye(4)
    with pytest.raises(ValueError, match=message):
        _solve(a, top=2, **options)
