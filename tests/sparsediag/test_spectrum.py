"""Spectra of the tiny problems against their dense Hessians."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsediag import Problem, Result, Spectrum, spectrum

every_case = pytest.mark.parametrize("name", cases.CASES)


@cache
def _found(name: str) -> Spectrum:
    return spectrum(cases.CASES[name](), top=5, tol=1e-10, max_products=400)


def _dense(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, the largest first, and eigenvectors as rows."""
    values, vectors = np.linalg.eigh(cases.hessian_of(name).numpy())
    return values[::-1], vectors.T[::-1]


# against the dense Hessian


@every_case
def test_the_largest_eigenvalues(name: str) -> None:
    found, (values, _) = _found(name), _dense(name)
    error = np.abs(found.eigenvalues - values[:5]).max() / np.abs(values).max()
    assert error < 1e-12
    assert found.converged
    assert (found.residuals <= 1e-10).all()


@pytest.mark.parametrize("which", ["smallest", "magnitude"])
@pytest.mark.parametrize("name", ["linear_regression", "tanh_mlp", "relu_cnn", "masked_cnn"])
def test_the_other_ends(name: str, which: str) -> None:
    values, _ = _dense(name)
    order = np.argsort(values if which == "smallest" else -np.abs(values))
    found = spectrum(cases.CASES[name](), top=4, which=which, tol=1e-9, max_products=400)
    np.testing.assert_allclose(found.eigenvalues, values[order][:4], rtol=0, atol=1e-10)


@every_case
def test_the_eigenvectors_outside_clusters(name: str) -> None:
    found, (values, vectors) = _found(name), _dense(name)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(5), rtol=0, atol=1e-12)
    gaps = np.abs(np.diff(values, prepend=np.inf, append=-np.inf))
    alone = [i for i in range(5) if min(gaps[i], gaps[i + 1]) > 1e-3 * values[0]]
    assert len(alone) == (0 if name == "linear_regression" else 5)
    for i in alone:
        sign = np.sign(found.vectors[i] @ vectors[i])
        np.testing.assert_allclose(found.vectors[i], sign * vectors[i], rtol=0, atol=1e-8)


@every_case
def test_the_residuals_are_true(name: str) -> None:
    found, hessian = _found(name), cases.hessian_of(name).numpy()
    misses = found.vectors @ hessian - found.eigenvalues[:, None] * found.vectors
    residuals = np.linalg.norm(misses, axis=1) / np.abs(found.eigenvalues)
    np.testing.assert_allclose(found.residuals, residuals, rtol=1e-2, atol=1e-13)


@every_case
def test_the_loss_rises_along_every_vector(name: str) -> None:
    slopes = _found(name).vectors @ cases.CASES[name]().gradient().numpy()
    assert (slopes >= 0).all()
    assert slopes.max() > 0


@pytest.mark.parametrize("name", cases.MASKED)
def test_a_mask_does_not_widen_the_spectrum(name: str) -> None:
    masked = cases.CASES[name]()
    masked.mask.apply_(masked.net)
    dense = dataclasses.replace(masked, mask=None)
    (high, low), (top, bottom) = (
        [spectrum(p, top=1, which=w, tol=1e-9).eigenvalues[0] for w in ("largest", "smallest")]
        for p in (dense, masked)
    )
    assert low <= bottom < top <= high
    assert high - top > 1e-3


def test_single_precision_agrees() -> None:
    double = cases.relu_cnn()
    batches = [(x.float(), y) for x, y in double.batches]
    found = spectrum(dataclasses.replace(double, net=double.net.float(), batches=batches), top=5)
    assert found.converged
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(found.eigenvalues, _found("relu_cnn").eigenvalues, rtol=1e-5)


# what it says of itself


def test_too_few_products_do_not_converge() -> None:
    found = spectrum(cases.relu_cnn(), top=5, max_products=8)
    assert not found.converged
    assert found.residuals.max() > 1e-3
    assert found.products == 13


def test_fewer_products_than_pairs_are_no_success() -> None:
    net = nn.Linear(8, 1, bias=False).double()
    batches = [(4 * torch.eye(8).double(), torch.ones(8, 1).double())]
    with pytest.raises(ValueError, match="max_products=2: need at least one for each of 5 pairs"):
        spectrum(Problem(net, batches, loss=F.mse_loss), top=5, max_products=2)


def test_products_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    count, hvp = 0, Problem.hvp

    def counted(*arguments: object) -> torch.Tensor:
        nonlocal count
        count += 1
        return hvp(*arguments)

    monkeypatch.setattr(Problem, "hvp", counted)
    assert spectrum(cases.tanh_mlp()).products == count > 5


def test_the_same_seed_gives_the_same_bits() -> None:
    one, same, other = (spectrum(cases.tanh_mlp(), seed=seed) for seed in (1, 1, 2))
    assert one.eigenvalues.tobytes() == same.eigenvalues.tobytes()
    assert one.vectors.tobytes() == same.vectors.tobytes()
    assert one.vectors.tobytes() != other.vectors.tobytes()
    np.testing.assert_allclose(one.eigenvalues, other.eigenvalues, rtol=1e-4)


def test_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    found = spectrum(cases.tanh_mlp(), top=2, progress=lambda *now: seen.append(now))
    assert seen == [(i + 1, 83) for i in range(found.products - 2)]


@every_case
def test_shares_are_those_of_the_tensors(name: str) -> None:
    found, problem = _found(name), cases.CASES[name]()
    shares = found.shares()
    assert shares.shape == (5, len(found.names))
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-12)
    first = problem.split(torch.from_numpy(found.vectors[0]))
    assert found.names == list(first)
    np.testing.assert_allclose(shares[0], [float(t.square().sum()) for t in first.values()])


def test_an_unused_layer_carries_nothing() -> None:
    found = _found("unused_parameter")
    idle = [n.startswith("idle") for n in found.names]
    assert sum(idle) == 2
    assert found.shares()[:, idle].max() < 1e-18


def test_the_table_names_the_tensor_that_carries_most() -> None:
    found = _found("relu_cnn")
    rows = found.table()
    assert [float(row["eigenvalue"]) for row in rows] == pytest.approx(found.eigenvalues, rel=1e-5)
    share = found.shares()[0]
    assert rows[0]["mostly in"] == f"{found.names[share.argmax()]} ({share.max():.0%})"


def test_the_picture_has_a_bar_for_each_pair() -> None:
    found = _found("relu_cnn")
    ax = found.plot()
    assert [bar.get_height() for bar in ax.containers[-1]] == pytest.approx(found.eigenvalues)
    assert ax.get_ylabel() == "Hessian eigenvalue"
    assert found.plot(ax) is ax


def test_a_file_gives_the_same_spectrum_back(tmp_path: Path) -> None:
    found = _found("masked_cnn")
    path = found.save(tmp_path / "spectrum.npz")
    for kind in (Spectrum, Result):
        back = kind.load(path)
        assert isinstance(back, Spectrum)
        for field in dataclasses.fields(Spectrum):
            here, there = getattr(found, field.name), getattr(back, field.name)
            assert np.array_equal(here, there) if isinstance(here, np.ndarray) else here == there
            assert type(here) is type(there)


def test_it_knows_where_it_comes_from() -> None:
    problem = cases.masked_cnn()
    source = spectrum(problem, top=2, seed=3).source
    assert source["problem"] == problem.digest
    assert source["density"] == problem.mask.density
    assert (source["samples"], source["weights"]) == (11, problem.size)
    assert source["options"]["seed"] == 3


# PyHessian as the solver


@pytest.mark.parametrize("name", ["softmax_regression", "relu_cnn", "masked_mlp", "tied_weights"])
def test_pyhessian_agrees(name: str) -> None:
    values, _ = _dense(name)
    expected = values[np.argsort(-np.abs(values))][:3]
    problem = cases.CASES[name]()
    found = spectrum(problem, top=3, tol=1e-7, solver="pyhessian", max_products=2000)
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-4)
    assert found.residuals.max() < 1e-2
    assert found.products > 6
    assert found.source["options"]["solver"] == "pyhessian"


@pytest.mark.parametrize("solver", ["lanczos", "pyhessian"])
def test_neither_solver_touches_the_net_or_the_generators(solver: str) -> None:
    problem = cases.masked_cnn()
    net = problem.net.train()
    net[4].eval()
    kept = torch.full_like(net[0].weight, 7.0)
    net[0].weight.grad = kept
    modes = [m.training for m in net.modules()]
    state = {name: t.clone() for name, t in net.state_dict().items()}
    rng = torch.random.get_rng_state()
    spectrum(problem, top=2, solver=solver)
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(t, state[name]) for name, t in net.state_dict().items())
    assert net[0].weight.grad is kept
    assert (kept == 7).all()
    assert all(p.grad is None for n, p in net.named_parameters() if n != "0.weight")
    assert torch.equal(torch.random.get_rng_state(), rng)


# what is refused


def test_an_unknown_solver_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown solver 'lanzcos'; did you mean 'lanczos'"):
        spectrum(cases.tanh_mlp(), solver="lanzcos")  # type: ignore[arg-type]


def test_an_unknown_end_is_refused() -> None:
    with pytest.raises(ValueError, match="of the spectrum 'largst'; did you mean 'largest'"):
        spectrum(cases.tanh_mlp(), which="largst")  # type: ignore[arg-type]


def test_more_pairs_than_weights_are_refused() -> None:
    problem = Problem(nn.Linear(2, 1), [(torch.eye(2), torch.ones(2, 1))], loss=F.mse_loss)
    with pytest.raises(ValueError, match="top=4 eigenvalues asked of a problem with 3 live"):
        spectrum(problem, top=4)
