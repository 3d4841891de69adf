"""Overlaps of eigenspaces: what they must be, and what they must not depend on."""

from __future__ import annotations

import dataclasses
from typing import Any

import cases
import numpy as np
import pytest
from torch import nn

from sparsediag import Problem, Spectrum, overlap, spectrum


def _found(name: str = "tanh_mlp", top: int = 3, **options: Any) -> Spectrum:
    return spectrum(cases.CASES[name](), top=top, tol=1e-8, **options)


def _with(found: Spectrum, vectors: np.ndarray) -> Spectrum:
    return dataclasses.replace(found, vectors=vectors)


@pytest.mark.parametrize("name", ["tanh_mlp", "masked_cnn", "linear_regression"])
def test_a_space_is_all_of_itself(name: str) -> None:
    one, same = (_found(name, seed=seed) for seed in (0, 0))
    np.testing.assert_allclose(overlap(one, same), np.ones(3), rtol=0, atol=1e-12)
    found = overlap(_found(seed=1), _found(seed=2))
    np.testing.assert_allclose(found, np.ones(3), rtol=0, atol=1e-12)


def test_orthogonal_spaces_have_nothing_in_common() -> None:
    high, low = _found(which="largest"), _found(which="smallest", top=2)
    found = overlap(high, low)
    assert found.shape == (2,)
    np.testing.assert_allclose(found, 0, rtol=0, atol=1e-7)


def test_a_larger_space_holds_a_smaller_one() -> None:
    np.testing.assert_allclose(overlap(_found(top=5), _found(top=2)), [1, 1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(overlap(_found(top=1), _found(top=4)), [1], rtol=0, atol=1e-12)


def test_signs_order_and_rotations_do_not_matter() -> None:
    one, other = _found(), _found("tanh_mlp", matrix="gauss-newton")
    expected = overlap(one, other)
    assert 0.01 < expected[-1] < expected[0] < 0.9999
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    for vectors in (-one.vectors, one.vectors[::-1], rotation @ one.vectors):
        np.testing.assert_allclose(overlap(_with(one, vectors), other), expected, atol=1e-12)
        np.testing.assert_allclose(overlap(other, _with(one, vectors)), expected, atol=1e-12)


def test_the_cosines_are_those_of_the_principal_angles() -> None:
    found = _found(top=4)
    a, b, c, d = found.vectors
    turned = np.stack([np.cos(0.3) * a + np.sin(0.3) * c, np.cos(1.1) * b - np.sin(1.1) * d])
    cosines = overlap(_with(found, np.stack([a, b])), _with(found, turned))
    np.testing.assert_allclose(cosines, np.cos([0.3, 1.1]), atol=1e-12)
    assert (cosines[:-1] >= cosines[1:]).all()


def test_masks_may_differ() -> None:
    sparse = cases.masked_cnn()
    full = sparse.replace(mask=None)
    third = sparse.replace(mask=cases.coins(sparse.net, 0.8))
    spectra = [spectrum(p, top=3, tol=1e-8) for p in (sparse, full, third)]
    spaces = []
    for problem, s in zip((sparse, full, third), spectra, strict=True):
        alive = cases.living(problem).numpy()
        spaces.append(np.zeros((3, len(alive))))
        spaces[-1][:, alive] = s.vectors
    for i, j in ((0, 1), (1, 0), (0, 2), (2, 1)):
        expected = np.linalg.svd(spaces[i] @ spaces[j].T, compute_uv=False)
        np.testing.assert_allclose(overlap(spectra[i], spectra[j]), expected, atol=1e-7)
        assert 0.01 < expected[-1] < 0.999
    assert overlap(spectra[0], spectra[0]) == pytest.approx(np.ones(3))


def test_a_part_of_a_masked_net_can_be_compared() -> None:
    whole = cases.masked_cnn()
    one, other = (spectrum(whole, top=2, params="7.*", matrix=m) for m in ("hessian", "fisher"))
    expected = np.linalg.svd(one.vectors @ other.vectors.T, compute_uv=False)
    np.testing.assert_allclose(overlap(one, other), expected, atol=1e-7)


def test_single_precision_stays_within_one() -> None:
    found = _found()
    single = _with(found, found.vectors.astype(np.float32))
    cosines = overlap(single, found)
    assert cosines.dtype == float
    assert (cosines <= 1).all()
    np.testing.assert_allclose(cosines, 1, atol=1e-6)


def test_other_nets_and_other_parts_are_refused() -> None:
    message = "the spectra are of different weights"
    wide = Problem(nn.Linear(6, 4).double(), cases.classes((9, 3), (6,), 4))
    pairs = [
        (_found(), _found("relu_cnn")),
        (_found(), _found(params="0.*")),
        (_found("softmax_regression"), spectrum(wide, top=3)),
    ]
    for one, other in pairs:
        with pytest.raises(ValueError, match=message):
            overlap(one, other)
        with pytest.raises(ValueError, match=message):
            overlap(other, one)
