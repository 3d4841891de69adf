"""The certificate: what it promises of good pairs holds, and every injected fault is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cases import orthonormal, symmetric
from scipy.special import erfinv
from scipy.stats import binomtest
from torch import Tensor

from sparsediag.curvature import certificate
from sparsediag.curvature.certificate import Certificate, certify
from sparsediag.curvature.lanczos import Eigenpairs, eigenpairs

SPECTRUM = np.concatenate([[10.0, 7, 5, 3.5], np.random.default_rng(0).uniform(-2, 2, 196)])


def _exact(a: Tensor) -> tuple[np.ndarray, Tensor]:
    """All the eigenpairs, largest first."""
    values, vectors = torch.linalg.eigh(a)
    return values.flip(0).numpy().copy(), vectors.T.flip(0).contiguous()


A = symmetric(SPECTRUM)
VALUES, VECTORS = _exact(A)


def _solve(a: Tensor, **options: Any) -> Eigenpairs:
    return eigenpairs(lambda v: a @ v, a[0], **options)


def _certify(a: Tensor, *pairs: Any, **options: Any) -> Certificate:
    return certify(lambda v: a @ v, *pairs, **options)


def _said(
    values: np.ndarray, vectors: Tensor, matvec: Callable[[Tensor], Tensor] | None = None
) -> Certificate:
    return certify(matvec or (lambda v: A @ v), values, vectors)


def _rayleigh(vectors: Tensor) -> tuple[np.ndarray, Tensor]:
    """These directions as unit vectors, with their Rayleigh quotients."""
    v = vectors / vectors.norm(dim=1, keepdim=True)
    return ((v @ A) * v).sum(1).numpy(), v


def _true_angles(vectors: Tensor) -> np.ndarray:
    own = VECTORS[: len(vectors)]
    along = (vectors * own).sum(1, keepdim=True)
    across = (vectors - along * own).norm(dim=1)
    return np.degrees(np.arctan2(across.numpy(), along[:, 0].abs().numpy()))


def _check_intervals(said: Certificate, values: np.ndarray) -> None:
    for low, high in said.intervals:
        assert ((values >= low - 1e-12) & (values <= high + 1e-12)).any()


# good pairs


@pytest.mark.parametrize("top", [1, 2, 4])
def test_nothing_speaks_against_exact_pairs(top: int) -> None:
    said = _said(VALUES[:top], VECTORS[:top])
    assert said.doubts == []
    assert said.residuals.shape == said.angles.shape == (top,)
    assert said.intervals.shape == (top, 2)
    assert (said.residuals < 1e-12).all()
    assert (said.angles < 1e-10).all()
    assert (np.diff(said.intervals, axis=1) < 1e-11).all()
    np.testing.assert_allclose(said.intervals.mean(1), VALUES[:top], rtol=1e-12)
    _check_intervals(said, VALUES)
    assert said.copies == 0
    assert said.orthogonality < 1e-12
    assert said.noise < 1e-12
    assert said.asymmetry < 1e-12
    assert not said.probe.missed
    assert said.probe.chance < 0.08


@pytest.mark.parametrize("which", ["smallest", "magnitude"])
def test_nothing_speaks_against_the_pairs_of_another_end(which: str) -> None:
    values = np.concatenate([[-9.0, -7, -5], np.linspace(-2, 2, 100)])
    a = symmetric(values)
    ordered, vectors = _exact(a)
    three = ordered[::-1][:3].copy(), vectors.flip(0)[:3]
    assert _certify(a, *three, which=which).doubts == []
    lost = three[0][[0, 2]], three[1][[0, 2]]
    (doubt,) = _certify(a, *lost, which=which).doubts
    assert "was missed" in doubt


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_nothing_speaks_against_what_the_search_found(which: str, dtype: torch.dtype) -> None:
    values = np.concatenate([[10.0, 7, 5, -12, -9, -6], np.linspace(-2, 2, 194)])
    a = symmetric(values).to(dtype)
    found = _solve(a, top=3, which=which)
    said = _certify(a, found.values, found.vectors, which=which, search=found)
    assert said.doubts == []
    assert said.count == 3
    assert said.probe is found.probe
    assert (said.residuals <= 1e-3).all()
    _check_intervals(said, _exact(a.double())[0])
    assert said.noise < 1e-4


def test_pairs_of_an_identity_are_good_though_their_directions_are_not_known() -> None:
    said = certify(lambda v: v.clone(), np.ones(2), torch.eye(20).double()[:2])
    assert said.doubts == []
    np.testing.assert_array_equal(said.angles, 90)


def test_all_the_pairs_of_a_small_matrix_leave_nothing_to_probe() -> None:
    a = symmetric(np.array([3.0, 1, -2]))
    said = _certify(a, *_exact(a))
    assert said.doubts == []
    assert said.count == 4
    assert not said.probe.missed


# the bounds


def test_the_bounds_hold_for_vectors_with_noise() -> None:
    rng, told = np.random.default_rng(0), 0
    for trial in range(100):
        noise = 10 ** rng.uniform(-3, -1)
        shift = torch.from_numpy(rng.normal(size=(3, 200))) / np.sqrt(200)
        values, vectors = _rayleigh(VECTORS[:3] + noise * shift)
        said = _certify(A, values, vectors, seed=trial)
        true = _true_angles(vectors)
        assert (true <= said.angles + 1e-9).all()
        told += int((said.angles < 90).sum())
        _check_intervals(said, VALUES)
        np.testing.assert_allclose(
            said.residuals,
            (vectors @ A - torch.from_numpy(values)[:, None] * vectors).norm(dim=1).numpy()
            / values,
        )
    assert told > 150  # of 200 whose neighbours are known: the bounds say something


def test_the_bounds_of_a_loose_search_hold() -> None:
    for seed in range(10):
        found = _solve(A, top=3, tol=3e-2, seed=seed)
        said = _certify(A, found.values, found.vectors, search=found, tol=3e-2)
        assert said.doubts == []
        assert (_true_angles(found.vectors) <= said.angles + 1e-9).all()
        assert said.angles.min() < 10
        _check_intervals(said, VALUES)


def test_an_interval_holds_an_eigenvalue_whatever_the_pair() -> None:
    rng = np.random.default_rng(0)
    for trial in range(30):
        vectors = torch.linalg.qr(torch.from_numpy(rng.normal(size=(200, 2)))).Q.T
        said = _certify(A, rng.uniform(-20, 20, 2), vectors, seed=trial)
        _check_intervals(said, VALUES)
        assert said.doubts


def test_values_of_equal_magnitude_keep_their_own_intervals() -> None:
    values = np.concatenate([[2.0, -2.0], np.linspace(-1, 1, 98)])
    a, vectors = symmetric(values), orthonormal(100).T.contiguous()
    for shift in (1e-9, -1e-9):
        said = _certify(a, np.array([2.0, -2.0 + shift]), vectors[:2], which="magnitude")
        assert said.doubts == []
        np.testing.assert_allclose(said.intervals, [[2, 2], [-2, -2]], atol=1e-8)
        said = _certify(a, np.array([-2.0, 2.0 + shift]), vectors[[1, 0]], which="magnitude")
        np.testing.assert_allclose(said.intervals, [[-2, -2], [2, 2]], atol=1e-8)


# random combinations of the products


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_two_products_check_all_pairs(which: str, dtype: torch.dtype) -> None:
    a = symmetric(np.concatenate([SPECTRUM, -SPECTRUM[:3] / 2])).to(dtype)
    found = _solve(a, top=4, which=which, tol=1e-2)
    each, both = (
        _certify(a, found.values, found.vectors, which=which, search=found, tol=1e-2, each=each)
        for each in (True, False)
    )
    assert (each.count, both.count) == (4, 2)
    assert each.doubts == both.doubts == []
    np.testing.assert_allclose(both.residuals, each.residuals, rtol=0.1, atol=1e-5)
    assert (np.diff(both.intervals) > 0.99 * np.diff(each.intervals)).all()
    assert (both.angles < each.angles + 0.1).all()
    _check_intervals(both, _exact(a.double())[0])


@pytest.mark.parametrize("step", range(0, 30, 3))
def test_a_product_that_was_wrong_once_is_found(step: int) -> None:
    count = 0

    def matvec(v: Tensor) -> Tensor:
        nonlocal count
        count += 1
        wrong = 0.3 * VECTORS[50] * (v @ VECTORS[51]) + 0.3 * VECTORS[51] * (v @ VECTORS[50])
        return A @ v + (wrong if count == step + 1 else 0)

    found = eigenpairs(matvec, A[0], top=4)
    count = -100
    said = certify(matvec, found.values, found.vectors, search=found, each=False)
    errors = torch.stack([A @ v for v in found.vectors]) - found.products
    if float(errors.norm()) > 3e-2:
        assert said.count == 6  # the combinations left a doubt, so that each was multiplied again
    _check_intervals(said, VALUES)


def test_combinations_hide_an_error_no_more_often_than_stated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worst case: the errors of all products are along one vector."""
    monkeypatch.setattr(certificate, "SMALL", 2**0.5 * erfinv((0.1 / 2) ** (1 / 2)))
    v, scale = torch.eye(3, 8).double(), np.array([3.0, 2.0, 1.0])
    error = torch.zeros(3, 8).double()
    error[:, 5] = torch.tensor([0.2, 0.1, 0.4])
    size = float((error[:, 5] / torch.from_numpy(scale)).norm())
    said = [
        certificate._check_combinations(lambda w: w, v, v + error, scale, seed).error
        for seed in range(1000)
    ]
    hidden = int((np.array(said) < size).sum())
    assert binomtest(hidden, 1000, 0.05).pvalue > 1e-3


# injected faults


def test_a_vector_that_came_three_times_is_named() -> None:
    said = _said(VALUES[[0, 0, 0]], VECTORS[[0, 0, 0]])
    assert said.copies == 2
    assert said.orthogonality == pytest.approx(1)
    assert any("2 of the vectors repeat another one" in doubt for doubt in said.doubts)
    assert any("not orthogonal" in doubt for doubt in said.doubts)


def test_a_ghost_that_is_not_quite_a_copy_is_named() -> None:
    vectors = VECTORS[:3].clone()
    vectors[2] = 0.999 * VECTORS[1] + np.sqrt(1 - 0.999**2) * VECTORS[9]
    said = _said(VALUES[[0, 1, 1]], vectors)
    assert said.copies == 1
    assert any("1 of the vectors repeat another one" in doubt for doubt in said.doubts)


def test_copies_of_an_eigenvalue_that_were_left_out_are_named() -> None:
    values = np.concatenate([[5.0] * 4, [4, 3], np.linspace(-2, 2, 194)])
    a, vectors = (
        symmetric(values),
        orthonormal(200).T.contiguous(),
    )  # eigh's vary from machine to machine
    for seed in range(20):
        for kept in ([0, 4, 5], [0, 1, 4], [0, 1, 2, 4]):
            said = _certify(a, values[kept], vectors[kept], seed=seed)
            (doubt,) = said.doubts
            assert "an eigenvalue as good as" in doubt
            assert values[kept[-1]] < said.probe.best < 5 + 1e-9
    assert _certify(a, values[:4], vectors[:4]).doubts == []


def test_a_pair_that_was_left_out_is_named() -> None:
    said = _said(VALUES[[0, 2]], VECTORS[[0, 2]])
    (doubt,) = said.doubts
    assert "was missed" in doubt
    assert said.probe.missed
    assert 5 < said.probe.best < 7 + 1e-9


def test_a_noisy_operator_is_named() -> None:
    generator = torch.Generator().manual_seed(0)

    def matvec(v: Tensor) -> Tensor:
        product = A @ v
        noise = torch.randn(len(v), generator=generator, dtype=torch.float64)
        return product + 1e-2 * product.norm() * noise / noise.norm()

    said = _said(VALUES[:3], VECTORS[:3], matvec)
    assert 0.003 < said.noise < 0.03
    assert any("two evaluations of the same product" in doubt for doubt in said.doubts)
    found = eigenpairs(matvec, A[0], top=3, tol=0.05)
    said = certify(matvec, found.values, found.vectors, search=found)
    assert any("two evaluations of the same product" in doubt for doubt in said.doubts)


@pytest.mark.parametrize("skew", [0.05, 0.5])
def test_an_operator_that_is_not_symmetric_is_named(skew: float) -> None:
    draws = torch.randn(200, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    b = A + skew * (draws - draws.T)
    said = _said(VALUES[:3], VECTORS[:3], lambda v: b @ v)
    assert said.asymmetry > skew / 10
    found = _solve(b, top=3)
    of_search = _certify(b, found.values, found.vectors, search=found)
    for doubts in (said.doubts, of_search.doubts):
        assert any("the matrix is not symmetric" in doubt for doubt in doubts)


def test_pairs_that_were_badly_deflated_are_named() -> None:
    vectors = VECTORS[:3].clone()
    vectors[1] += 0.05 * vectors[0]
    said = _said(*_rayleigh(vectors))
    assert said.orthogonality == pytest.approx(0.05, rel=0.01)
    assert any("the vectors are not orthogonal: 5.0e-02" in doubt for doubt in said.doubts)
    assert said.copies == 0


@pytest.mark.parametrize("off", [0.99, 1.01])
def test_a_wrong_value_is_named(off: float) -> None:
    said = _said(VALUES[:3] * [1, off, 1], VECTORS[:3])
    (doubt,) = said.doubts
    assert doubt.startswith("1 of 3 pairs have a residual above 0.001")
    np.testing.assert_allclose(said.residuals[1], 0.01 / off, rtol=1e-6)
    _check_intervals(said, VALUES)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value: float, place: int) -> None:
    values, vectors = VALUES[:3].copy(), VECTORS[:3].clone()
    values[place], vectors[place, 7] = value, value
    for said in (
        _said(values, VECTORS[:3]),
        _said(VALUES[:3], vectors),
        _said(VALUES[:3], VECTORS[:3], lambda v: A @ v * np.nan),
    ):
        assert any("not finite" in doubt for doubt in said.doubts)


def test_a_tolerance_decides_what_counts_as_converged() -> None:
    values, vectors = _rayleigh(VECTORS[:3] + 1e-2 * VECTORS[100])
    strict = _certify(A, values, vectors, tol=1e-4)
    loose = _certify(A, values, vectors, tol=3e-2)
    assert any(doubt.startswith("3 of 3 pairs") for doubt in strict.doubts)
    assert not any("residual" in doubt for doubt in loose.doubts)
    np.testing.assert_array_equal(strict.residuals, loose.residuals)


def test_a_zero_eigenvalue_is_judged_by_the_size_of_the_matrix() -> None:
    a = symmetric(np.concatenate([[3.0, 2], np.zeros(20)]))
    values, vectors = _exact(a)
    said = _certify(a, values[:4], vectors[:4])
    assert said.doubts == []
    assert (said.residuals < 1e-6).all()


# counting


@pytest.mark.parametrize("top", [1, 3])
def test_products_of_a_certificate_are_counted(top: int) -> None:
    count = 0

    def matvec(v: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return A @ v

    said = _said(VALUES[:top], VECTORS[:top], matvec)
    assert said.count == count == top + 1 + said.probe.count
    assert 0 < said.probe.count <= 10 + 2 * top
    found = eigenpairs(matvec, A[0], top=top)
    assert count == said.count + found.num_matvecs
    count = 0
    again = certify(matvec, found.values, found.vectors, search=found)
    assert again.count == count == top


def test_the_same_seed_certifies_the_same() -> None:
    state = torch.random.get_rng_state()
    one, same, other = (_certify(A, VALUES[:3], VECTORS[:3], seed=s).probe for s in (1, 1, 2))
    assert one == same
    assert one != other
    assert torch.equal(torch.random.get_rng_state(), state)
