"""The basis of the eigensolver: what it says of the operator holds at every moment."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import orthonormal, symmetric
from torch import Tensor

from sparsediag.curvature.krylov import Krylov
from sparsediag.curvature.lanczos import ORDER

every_block = pytest.mark.parametrize("block", [1, 2, 3])


def _krylov(a: Tensor, seed: int = 0) -> Krylov:
    return Krylov(lambda v: a @ v, a[0], torch.Generator().manual_seed(seed))


def _grow(krylov: Krylov, steps: int, block: int = 1) -> None:
    for _ in range(steps):
        last = krylov.next_directions(block) if len(krylov) else None
        krylov.grow(krylov.random(block) if last is None else last)


def _check(krylov: Krylov, a: Tensor, atol: float = 1e-12) -> None:
    """All that the basis says, against explicit products."""
    m, q, size = len(krylov), krylov.vectors, float(torch.linalg.matrix_norm(a, 2))
    torch.testing.assert_close(q @ q.T, torch.eye(m).to(a), rtol=0, atol=atol)
    projected = torch.from_numpy(krylov.projected).to(a)
    torch.testing.assert_close(projected, q @ a @ q.T, rtol=0, atol=atol * size)
    vectors, products = krylov.combine(np.eye(m))
    torch.testing.assert_close(vectors, q, rtol=0, atol=atol)
    torch.testing.assert_close(products, q @ a, rtol=0, atol=atol * size)
    ritz = krylov.ritz(ORDER["magnitude"])
    v, hv = krylov.combine(ritz.coordinates)
    torch.testing.assert_close(hv, v @ a, rtol=0, atol=atol * size)
    explicit = (v @ a - torch.from_numpy(ritz.values).to(a)[:, None] * v).norm(dim=1)
    np.testing.assert_allclose(ritz.residuals, explicit.double().numpy(), atol=2 * atol * size)
    assert (np.diff(np.abs(ritz.values)) <= 1e-12 * size).all()


# H Q = Q S + F C^T


@every_block
def test_the_relation_holds_after_a_thick_restart(block: int) -> None:
    a = symmetric(np.linspace(-3, 5, 60))
    krylov = _krylov(a)
    _grow(krylov, 6, block)
    before = krylov.ritz(ORDER["largest"])
    krylov.shrink(before, np.arange(4))
    assert len(krylov) == 4
    after = krylov.ritz(ORDER["largest"])
    np.testing.assert_allclose(after.values, before.values[:4], rtol=1e-13)
    np.testing.assert_allclose(after.residuals, before.residuals[:4], rtol=1e-10)
    _check(krylov, a)
    for _ in range(5):
        _grow(krylov, 1, block)
        _check(krylov, a)
    assert krylov.products == 11 * block


@every_block
def test_the_relation_holds_after_many_restarts_and_random_directions(block: int) -> None:
    a = symmetric(np.concatenate([[9.0, 7], np.linspace(-3, 3, 58)]))
    krylov = _krylov(a)
    for turn in range(6):
        _grow(krylov, 4, block)
        krylov.grow(krylov.random(block))
        _grow(krylov, 2, block)
        _check(krylov, a)
        krylov.shrink(krylov.ritz(ORDER["largest"]), np.arange(4 + turn % 3))
        _check(krylov, a)
    assert krylov.asymmetry < 1e-13
    for _ in range(20):
        krylov.grow(krylov.residual_directions(krylov.ritz(ORDER["largest"]), np.array([0]), 1))
    assert krylov.ritz(ORDER["largest"]).residuals[0] < 1e-3  # and it goes on to converge
    _check(krylov, a)


@every_block
def test_the_worst_pair_loses_its_residual_to_the_direction_that_carries_it(block: int) -> None:
    a = symmetric(np.concatenate([[9.0, 7], np.linspace(-3, 3, 100)]))
    krylov = _krylov(a)
    _grow(krylov, 6, block)
    krylov.grow(krylov.random(1))  # the residuals of the old pairs are none of the newest product
    before = krylov.ritz(ORDER["largest"])
    worst = krylov.residual_directions(before, np.array([0]), block)
    assert (worst @ krylov.vectors.T).abs().max() < 1e-9
    v, hv = krylov.combine(before.coordinates[:, :1])
    residual = (hv - before.values[0] * v)[0]
    inside = torch.linalg.lstsq(worst.T, residual[:, None]).solution[:, 0] @ worst
    assert (residual - inside).norm() < 0.2 * residual.norm()
    krylov.grow(worst)
    assert krylov.ritz(ORDER["largest"]).residuals[0] < 0.7 * before.residuals[0]
    _check(krylov, a)


@every_block
def test_coordinates_from_before_a_growth_are_good_after_it(block: int) -> None:
    a = symmetric(np.linspace(-3, 5, 60))
    krylov = _krylov(a)
    _grow(krylov, 5, block)
    ritz = krylov.ritz(ORDER["largest"])
    old = krylov.combine(ritz.coordinates[:, :3])
    _grow(krylov, 2, block)
    for one, other in zip(old, krylov.combine(ritz.coordinates[:, :3]), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


# orthonormality


@every_block
def test_the_basis_stays_orthonormal_where_the_matrix_is_ill_conditioned(block: int) -> None:
    a = symmetric(np.geomspace(1e-8, 1e8, 200))
    krylov = _krylov(a)
    _grow(krylov, 60, block)
    q = krylov.vectors
    assert len(q) >= 60
    assert (q @ q.T - torch.eye(len(q))).abs().max() < 1e-13
    single = _krylov(a.float())
    _grow(single, 60, block)
    q = single.vectors
    assert q.dtype == torch.float32
    assert len(q) >= 60
    assert (q @ q.T - torch.eye(len(q))).abs().max() < 1e-5


def test_the_relation_holds_in_single_precision() -> None:
    a = symmetric(np.linspace(-3, 5, 60)).float()
    krylov = _krylov(a)
    _grow(krylov, 10, 2)
    krylov.shrink(krylov.ritz(ORDER["largest"]), np.arange(8))
    _grow(krylov, 5, 2)
    _check(krylov, a, 5e-6)
    assert krylov.projected.dtype == np.float64


def test_the_relation_holds_up_to_the_whole_space() -> None:
    values = np.linspace(-1, 2, 10)
    a = symmetric(values)
    krylov = _krylov(a)
    while len(krylov) < 10:
        last = krylov.next_directions(3) if len(krylov) else None
        krylov.grow(krylov.random(3) if last is None else last)
    _check(krylov, a)
    assert krylov.products == 10
    assert krylov.next_directions() is None
    assert len(krylov.random(3)) == 0
    np.testing.assert_allclose(krylov.ritz(ORDER["smallest"]).values, values, atol=1e-13)


# asymmetry


@every_block
@pytest.mark.parametrize("restart", [False, True])
def test_a_symmetric_matrix_shows_no_asymmetry_and_another_does(block: int, restart: bool) -> None:
    a = symmetric(np.linspace(-3, 5, 60))
    draws = torch.randn(60, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for skew, low, high in ((0.0, 0.0, 1e-13), (0.01, 2e-3, 0.1), (1.0, 0.2, 10.0)):
        krylov = _krylov(a + skew * (draws - draws.T))
        _grow(krylov, 6, block)
        if restart:
            krylov.shrink(krylov.ritz(ORDER["largest"]), np.arange(3))
        _grow(krylov, 6, block)
        assert low <= krylov.asymmetry <= high


def test_the_asymmetry_does_not_hang_on_the_size_of_the_matrix() -> None:
    a = symmetric(np.linspace(-3, 5, 60))
    draws = torch.randn(60, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    b, seen = a + 0.1 * (draws - draws.T), []
    for size in (1e-12, 1.0, 1e12):
        krylov = _krylov(size * b)
        _grow(krylov, 8)
        seen.append(krylov.asymmetry)
    np.testing.assert_allclose(seen, seen[1], rtol=1e-6)


# invariant subspaces


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_nothing_is_last_when_an_invariant_subspace_is_exhausted(dimension: int) -> None:
    a = torch.diag(torch.linspace(-3, 5, 60, dtype=torch.float64))  # in axes: no rounding outside
    krylov = _krylov(a)
    krylov.grow(torch.eye(60).double()[4:60:11][:dimension].sum(0, keepdim=True))
    for _ in range(dimension - 1):
        last = krylov.next_directions()
        assert last is not None
        krylov.grow(last)
    assert krylov.next_directions() is None
    assert krylov.ritz(ORDER["largest"]).residuals.max() < 1e-10
    krylov.grow(krylov.random(1))
    assert krylov.next_directions() is not None
    _check(krylov, a)


@every_block
def test_nothing_is_last_of_the_identity_and_of_zero(block: int) -> None:
    for a in (torch.eye(20), torch.zeros(20, 20), torch.eye(20).double()):
        krylov = _krylov(a)
        for step in range(1, 4):
            krylov.grow(krylov.random(block))
            assert krylov.next_directions(block) is None
            assert len(krylov) == step * block


def test_last_gives_one_direction_where_two_products_agree() -> None:
    a = torch.diag(torch.tensor([2.0, 1, 0, 0, 0, 0], dtype=torch.float64))
    a[0, 4] = a[4, 0] = a[1, 4] = a[4, 1] = 1.0  # both lead to the fifth axis only
    krylov = _krylov(a)
    krylov.grow(torch.eye(6).double()[:2])
    last = krylov.next_directions(2)
    torch.testing.assert_close(last.abs(), torch.eye(6).double()[[4]])
    krylov.grow(last)
    assert krylov.next_directions(2) is None
    _check(krylov, a)


@every_block
def test_last_gives_unit_rows_that_are_new(block: int) -> None:
    a = symmetric(np.linspace(-3, 5, 60))
    krylov = _krylov(a)
    _grow(krylov, 5, 3)
    last = krylov.next_directions(block)
    assert last.shape == (block, 60)
    torch.testing.assert_close(last.norm(dim=1), torch.ones(block).double())
    assert (last @ krylov.vectors.T).abs().max() < 1e-12
    outside = krylov.vectors[-3:] @ a
    outside -= outside @ krylov.vectors.T @ krylov.vectors
    cosines = (last * outside[:block]).sum(1) / outside[:block].norm(dim=1)
    torch.testing.assert_close(cosines, torch.ones(block).double())


# rows whose products are known


@every_block
def test_a_basis_grows_beside_rows_that_were_adopted(block: int) -> None:
    values = np.concatenate([[9.0, 7, 5], np.linspace(-2, 2, 57)])
    a = symmetric(values)
    krylov, given = _krylov(a), orthonormal(len(values)).T[[0, 2]]
    krylov.adopt(given, given @ a)
    assert len(krylov) == 2
    assert krylov.products == 0
    krylov.grow(krylov.random(block))
    _grow(krylov, 30 // block, block)
    q = krylov.vectors
    assert len(q) == 2 + krylov.products
    assert (q @ q.T - torch.eye(len(q))).abs().max() < 1e-13
    whole = torch.from_numpy(krylov.projected)
    torch.testing.assert_close(whole, q @ a @ q.T, rtol=0, atol=1e-11)
    best = np.linalg.eigvalsh(krylov.projected[2:, 2:])[-1]
    assert abs(best - 7) < 1e-8  # the pairs of 9 and 5 are out of reach
    assert krylov.asymmetry < 1e-13


# chance


def test_random_directions_hang_on_the_generator_alone() -> None:
    a = symmetric(np.linspace(-3, 5, 60))
    state = torch.random.get_rng_state()
    one, same, other = (_krylov(a, seed).random(2) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    single = _krylov(a.float(), 1).random(2)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), one)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_basis_of_long_vectors_is_as_orthogonal_as_one_of_short_ones() -> None:
    slope = torch.linspace(0, 1, 3_000_000) ** 8
    krylov = Krylov(lambda v: slope * v, slope, torch.Generator().manual_seed(0))
    directions: Tensor | None = krylov.random(1)
    for _ in range(8):
        assert directions is not None
        krylov.grow(directions)
        directions = krylov.next_directions()
    rows = krylov.vectors.double()
    assert float((rows @ rows.T - torch.eye(8)).abs().max()) < 3e-6
