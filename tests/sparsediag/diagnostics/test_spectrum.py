"""Spectra of the tiny problems against their dense Hessians."""

from __future__ import annotations

import dataclasses
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from sparsediag import Curvature, Mask, Problem, Result, Spectrum, spectrum

every_case = pytest.mark.parametrize("name", cases.CASES)
some_cases = pytest.mark.parametrize("name", ["tanh_mlp", "relu_cnn", "masked_cnn", "tied_weights"])


@cache
def _found(name: str) -> Spectrum:
    return spectrum(cases.CASES[name](), top=5, tol=1e-10, max_matvecs=400)


def _dense(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, the largest first, and eigenvectors as rows."""
    values, vectors = np.linalg.eigh(cases.hessian_of(name).numpy())
    return values[::-1], vectors.T[::-1]


def _top(hessian: Tensor, count: int) -> np.ndarray:
    """The largest eigenvalues of a matrix, the largest first."""
    return np.linalg.eigvalsh(hessian.numpy())[::-1][:count]


# against the dense Hessian


@every_case
def test_the_largest_eigenvalues(name: str) -> None:
    found, (values, _) = _found(name), _dense(name)
    error = np.abs(found.eigenvalues - values[:5]).max() / np.abs(values).max()
    assert error < 1e-12
    assert found.converged
    assert found.doubts == []
    assert (found.residuals <= 1e-10).all()
    assert found.lowest >= values[-1] - 1e-12


@pytest.mark.parametrize("which", ["smallest", "magnitude"])
@pytest.mark.parametrize("name", ["linear_regression", "tanh_mlp", "relu_cnn", "masked_cnn"])
def test_the_other_ends(name: str, which: str) -> None:
    values, _ = _dense(name)
    order = np.argsort(values if which == "smallest" else -np.abs(values))
    found = spectrum(cases.CASES[name](), top=4, which=which, tol=1e-9, max_matvecs=400)
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
    dense = masked.replace(mask=None)
    (high, low), (top, bottom) = (
        [spectrum(p, top=1, which=w, tol=1e-9).eigenvalues[0] for w in ("largest", "smallest")]
        for p in (dense, masked)
    )
    assert low <= bottom < top <= high
    assert high - top > 1e-3


def test_single_precision_agrees() -> None:
    double = cases.relu_cnn()
    batches = [(x.float(), y) for x, y in double.batches]
    found = spectrum(double.replace(net=double.net.float(), batches=batches), top=5)
    assert found.converged
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(found.eigenvalues, _found("relu_cnn").eigenvalues, rtol=1e-5)


# convergence, provenance and files


def test_too_few_products_do_not_converge() -> None:
    found = spectrum(cases.relu_cnn(), top=5, max_matvecs=8)
    assert not found.converged
    assert found.residuals.max() > 1e-3
    assert found.products == 8
    bad = int((found.residuals > 1e-3).sum())
    assert found.doubts[0].startswith(f"{bad} of 5 pairs have a residual above 0.001, the worst ")


@pytest.mark.parametrize("check", ["combined", "each"])
def test_products_are_counted(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    count, call = 0, Curvature.__call__

    def counted(self: Curvature, vector: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return call(self, vector)

    monkeypatch.setattr(Curvature, "__call__", counted)
    found = spectrum(cases.tanh_mlp(), top=4, check=check)
    assert found.checks["products"] == {"combined": 2, "each": 4}[check]
    assert found.products + found.checks["products"] == count > 8


@pytest.mark.parametrize("mode", ["tape", "retained"])
def test_the_same_seed_gives_the_same_bits(mode: Any) -> None:
    one, same, other = (spectrum(cases.tanh_mlp(), seed=seed, mode=mode) for seed in (1, 1, 2))
    assert one.eigenvalues.tobytes() == same.eigenvalues.tobytes()
    assert one.vectors.tobytes() == same.vectors.tobytes()
    assert one.vectors.tobytes() != other.vectors.tobytes()
    np.testing.assert_allclose(one.eigenvalues, other.eigenvalues, rtol=1e-4)


def test_progress_counts_products() -> None:
    seen: list[tuple[int, int]] = []
    found = spectrum(cases.tanh_mlp(), top=2, progress=lambda *now: seen.append(now))
    counts = [count for count, _ in seen]
    assert counts[:4] == [1, 2, 3, 4]
    assert counts == sorted(set(counts))
    assert 8 < counts[-1] <= found.products
    assert {limit for _, limit in seen} == {220}


@every_case
def test_shares_are_those_of_the_tensors(name: str) -> None:
    found, problem = _found(name), cases.CASES[name]()
    shares = found.shares()
    assert shares.shape == (5, len(found.names))
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-12)
    first = problem.split(torch.from_numpy(found.vectors[0]))
    assert found.names == list(first)
    np.testing.assert_allclose(shares[0], [float(t.square().sum()) for t in first.values()])
    idle = [i for i, n in enumerate(found.names) if n.startswith("idle")]  # unused
    assert shares[:, idle].max(initial=0) < 1e-18


def test_the_table_names_the_tensor_with_most_of_the_vector() -> None:
    found = _found("relu_cnn")
    rows = found.table()
    assert [float(row["eigenvalue"]) for row in rows] == pytest.approx(found.eigenvalues, rel=1e-5)
    share = found.shares()[0]
    assert rows[0]["mostly in"] == f"{found.names[share.argmax()]} ({share.max():.0%})"


def test_the_picture_shows_each_pair() -> None:
    found = _found("relu_cnn")
    ax = found.plot()
    ((points, caps, _),) = ax.containers
    assert points.get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert points.get_ydata().tolist() == found.eigenvalues.tolist()
    assert points.get_markerfacecolor() != "white"
    low, high = (cap.get_ydata() for cap in caps)
    np.testing.assert_allclose(np.stack([low, high], axis=1), found.intervals, rtol=0, atol=1e-15)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("eigenvector", "Hessian eigenvalue")
    assert found.plot(ax) is ax
    points, _, _ = spectrum(cases.relu_cnn(), max_matvecs=8).plot().containers[0]
    assert points.get_markerfacecolor() == "white"  # not converged


@pytest.mark.parametrize(
    "options", [{}, {"density": True}, {"max_matvecs": 6}, {"solver": "pyhessian", "top": 2}]
)
def test_a_spectrum_survives_its_file_and_json(tmp_path: Path, options: dict[str, Any]) -> None:
    found = spectrum(cases.masked_cnn(), **options)
    assert not ("max_matvecs" in options and found.converged)
    path = found.save(tmp_path / "spectrum.npz")
    for kind in (Spectrum, Result):
        back = kind.load(path)
        assert isinstance(back, Spectrum)
        for field in dataclasses.fields(Spectrum):
            here, there = getattr(found, field.name), getattr(back, field.name)
            assert np.array_equal(here, there) if isinstance(here, np.ndarray) else here == there
            assert type(here) is type(there)
    plain = json.loads(json.dumps(found.json(), allow_nan=False))
    assert plain["kind"] == "Spectrum"
    assert plain["eigenvalues"] == found.eigenvalues.tolist()
    assert (plain["checks"], plain["doubts"]) == (found.checks, found.doubts)
    assert plain["nodes"] == found.nodes.tolist()


def test_the_source_of_a_spectrum() -> None:
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
    found = spectrum(problem, top=3, tol=1e-7, solver="pyhessian", max_matvecs=2000)
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


# invalid options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "lanzcos"}, "unknown solver 'lanzcos'; did you mean 'lanczos'"),
        ({"check": "every"}, "unknown check 'every'"),
        ({"which": "largst"}, "'largst'; did you mean 'largest'"),
        ({"tol": 0.0}, "tol=0.0"),
        ({"tol": -1.0}, "tol=-1.0"),
        ({"tol": math.nan}, "tol=nan"),
        ({"top": 0}, "top=0"),
        ({"top": 84}, "83 live weights"),
        ({"max_matvecs": 4}, "max_matvecs=4: need at least one for each of 5 pairs"),
        ({"matrix": "hesian"}, "unknown matrix 'hesian'; did you mean 'hessian'?"),
        ({"norm": "filtr"}, "unknown norm 'filtr'; did you mean 'filter'?"),
        ({"mode": "taep"}, "unknown mode of products 'taep'; did you mean 'tape'?"),
        ({"max_basis": 6}, "max_basis=6: need 7 vectors or more for top=5"),
        ({"block_size": 0}, "block_size=0: need 1 direction a step or more"),
        ({"memory": -1.0}, "memory=-1.0: need 0 GiB or more"),
        ({"params": "nonsense.*"}, "unknown trainable weight 'nonsense.*'"),
        ({"density": True, "num_probes": 1}, "num_probes=1, lanczos_steps=40: need 2"),
        ({"density": True, "lanczos_steps": 0}, "num_probes=5, lanczos_steps=0: need 2"),
        ({"solver": "pyhessian", "which": "smallest"}, "PyHessian finds the largest magnitude"),
        ({"solver": "pyhessian", "which": "largst"}, "did you mean 'largest'"),
        ({"solver": "pyhessian", "matrix": "fisher"}, "PyHessian finds the largest magnitude"),
        ({"solver": "pyhessian", "norm": "filter"}, "PyHessian finds the largest magnitude"),
        ({"solver": "pyhessian", "max_matvecs": 0}, "max_matvecs=0"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        spectrum(cases.tanh_mlp(), **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# the certificate


@every_case
def test_the_intervals_hold_the_eigenvalues_copies_counted(name: str) -> None:
    found, (values, _) = spectrum(cases.CASES[name](), top=5, tol=0.1), _dense(name)
    low, high = found.intervals.T
    best = np.sort(values)[::-1][:5]
    assert ((low <= best) & (best <= high)).all()
    assert ((low <= found.eigenvalues) & (found.eigenvalues <= high)).all()
    assert (high - low <= 0.3 * found.eigenvalues + 1e-12).all()


def test_the_angle_in_a_cluster_is_not_known() -> None:
    found = _found("linear_regression")  # every eigenvalue is there three times
    assert (found.angles[:3] == 90).all()
    assert {row["angle"] for row in found.table()[:3]} == {"?"}
    assert _found("relu_cnn").angles.max() < 1e-6


@every_case
def test_the_checks_of_sound_pairs_are_small(name: str) -> None:
    checks = _found(name).checks
    measured = {"orthogonality", "copies", "noise", "asymmetry", "hidden"}
    assert set(checks) == measured | {"probe", "products"}
    assert checks["orthogonality"] < 1e-12
    assert checks["copies"] == 0
    assert checks["noise"] < 1e-10
    assert checks["asymmetry"] < 1e-12
    assert checks["hidden"] < 0.08
    assert checks["products"] == 2
    assert 0 <= checks["probe"] < _found(name).products


@pytest.mark.parametrize("solver", ["lanczos", "pyhessian"])
def test_products_that_are_not_the_same_twice_are_doubted(
    monkeypatch: pytest.MonkeyPatch, solver: Any
) -> None:
    call, generator = Curvature.__call__, torch.Generator().manual_seed(0)

    def noisy(self: Curvature, vector: Tensor) -> Tensor:
        product = call(self, vector)
        noise = torch.randn(len(product), generator=generator).to(product)
        return product + 1e-2 * product.norm() * noise / noise.norm()

    options: dict[str, Any] = {"top": 2, "tol": 5e-3, "solver": solver, "max_matvecs": 300}
    if solver == "lanczos":
        assert spectrum(cases.tanh_mlp(), **options).converged
    monkeypatch.setattr(Curvature, "__call__", noisy)
    found = spectrum(cases.tanh_mlp(), **options)
    assert not found.converged
    assert 5e-3 < found.checks["noise"] < 5e-2
    noise = f"two evaluations of the same product differ by {found.checks['noise']:.1e}"
    assert any(line.startswith(noise) for line in found.doubts)
    assert any(line.startswith("doubt: two evaluations") for line in found.remarks())


@pytest.mark.parametrize("counts", [(9, 3), (1, 11)])
def test_the_spectrum_of_a_sum_is_that_of_the_mean_times_the_samples(
    counts: tuple[int, ...],
) -> None:
    net, batches = cases.softmax_regression().net, cases.classes(counts, (5,), 4)
    problem = Problem(net, batches, loss=nn.CrossEntropyLoss(reduction="sum"))
    found = spectrum(problem, top=2)
    assert found.converged
    exact = torch.linalg.eigvalsh(cases.dense_hessian(problem)).flip(0)[:2]
    np.testing.assert_allclose(found.eigenvalues, exact, rtol=1e-9)


def test_the_verdict_is_the_first_remark() -> None:
    sound, poor = (spectrum(cases.relu_cnn(), max_matvecs=n) for n in (None, 8))
    first = f"{sound.products} products and 2 to check them"
    assert sound.remarks()[0].startswith(f"converged: {first}")
    assert poor.remarks()[0].startswith("NOT converged: 8 products and 2 to check them")
    assert not any(line.startswith("doubt") for line in sound.remarks())
    assert [f"doubt: {d}" for d in poor.doubts] == poor.remarks()[-len(poor.doubts) :]


# which matrix


@some_cases
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_blocks_of_vectors_find_the_same(name: str, which: Any) -> None:
    values, _ = _dense(name)
    order = {"largest": -values, "smallest": values, "magnitude": -np.abs(values)}[which]
    found = spectrum(cases.CASES[name](), top=3, which=which, block_size=2, tol=1e-8)
    assert found.converged
    np.testing.assert_allclose(found.eigenvalues, values[np.argsort(order)][:3], rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("tanh_mlp", "2.*"),
        ("relu_cnn", "matrices"),
        ("masked_cnn", "0.*, 7.weight"),
        ("residual_net", "*.bias"),
    ],
)
def test_some_of_the_weights_have_their_block_of_the_hessian(name: str, params: str) -> None:
    problem = cases.CASES[name]()
    found = spectrum(problem, top=3, params=params, tol=1e-9)
    weights = {n: p for n, p in problem.net.named_parameters() if p.requires_grad}
    chosen = torch.cat([torch.full((p.numel(),), n in found.names) for n, p in weights.items()])
    rows = chosen[cases.living(problem)]
    assert found.converged
    assert found.vectors.shape == (3, int(rows.sum())) < (3, problem.size)
    assert found.names == list(problem.view(params=params).live.shapes)
    hessian = cases.hessian_of(name)[rows][:, rows]
    np.testing.assert_allclose(found.eigenvalues, _top(hessian, 3), rtol=1e-9)


@pytest.mark.parametrize("name", cases.MASKED)
def test_the_dense_view_moves_the_dead_weights_of_the_masked_net(name: str) -> None:
    problem = cases.CASES[name]()
    found, own = (spectrum(problem, top=3, dense=d, tol=1e-9) for d in (True, False))
    net = cases.CASES[name]().net
    problem.mask.apply_(net)
    hessian = cases.dense_hessian(problem.replace(net=net, mask=None))
    assert len(hessian) == found.vectors.shape[1] > problem.size
    np.testing.assert_allclose(found.eigenvalues, _top(hessian, 3), rtol=1e-9)
    assert found.eigenvalues[0] > own.eigenvalues[0] + 1e-3
    assert any("dense view" in line for line in found.remarks())
    assert not any("dense view" in line for line in own.remarks())


@pytest.mark.parametrize(
    "options", [{"matrix": "gauss-newton"}, {"matrix": "fisher"}, {"norm": "filter"}]
)
@pytest.mark.parametrize("name", ["tanh_mlp", "masked_cnn"])
def test_other_matrices_are_those_of_the_operator(name: str, options: dict[str, Any]) -> None:
    problem = cases.CASES[name]()
    operator = Curvature(problem, **options)
    expected = torch.stack([operator(v) for v in torch.eye(problem.size).double()])
    for mode in ("tape", "retained"):
        found = spectrum(problem, top=4, tol=1e-8, mode=mode, **options)
        assert found.converged
        np.testing.assert_allclose(found.eigenvalues, _top(expected, 4), rtol=1e-9)
    assert abs(found.eigenvalues[0] / _dense(name)[0][0] - 1) > 1e-3
    if "matrix" in options:
        assert found.lowest > -1e-12
        assert found.plot().get_ylabel() == f"{options['matrix'].title()} eigenvalue"


# the density


@cache
def _with_density(name: str) -> Spectrum:
    return spectrum(cases.CASES[name](), top=3, density=True, num_probes=8)


@pytest.mark.parametrize("name", ["tanh_mlp", "relu_cnn", "residual_net"])
def test_the_density_is_that_of_the_dense_spectrum(name: str) -> None:
    found, (values, _) = _with_density(name), _dense(name)
    assert found.nodes.shape == found.node_weights.shape == (8, 40)
    np.testing.assert_allclose(found.node_weights.sum(1), 1, rtol=1e-12)
    assert (found.node_weights >= 0).all()
    nodes, weights = found.nodes.ravel(), found.node_weights.ravel()
    span = values[0] - values[-1]
    assert values[-1] - 1e-12 <= nodes[weights > 0].min()
    assert nodes.max() <= values[0] + 1e-12
    assert wasserstein_distance(nodes, values, weights) < 0.03 * span
    assert wasserstein_distance(nodes[:40], values, weights[:40]) > 0

    places = np.linspace(values[-1] - span, values[0] + span, 4000)
    mean, error = found.density(places, span / 50)
    assert np.trapezoid(mean, places) == pytest.approx(1, rel=1e-6)
    assert (error >= 0).all()
    assert 0 < error.max() < mean.max()


@pytest.mark.parametrize("name", ["linear_regression", "tanh_mlp", "unused_parameter"])
def test_there_is_an_eigenvalue_at_or_below_the_lowest(name: str) -> None:
    for found in (_with_density(name), _found(name)):
        low = _dense(name)[0][-1]
        assert low - 1e-12 <= found.lowest <= found.eigenvalues.min()


def test_a_spectrum_without_density() -> None:
    found = _found("relu_cnn")
    assert found.nodes.shape == found.node_weights.shape == (0, 0)
    with pytest.raises(ValueError, match="density=True"):
        found.density(np.zeros(1), 0.1)


def test_the_picture_of_a_density_marks_the_outliers() -> None:
    found = _with_density("relu_cnn")
    ax = found.plot()
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert lines["eigenvalues"].get_xdata().tolist() == found.eigenvalues.tolist()
    low, high = ax.get_xlim()
    assert low < found.lowest < found.eigenvalues[0] < high
    heights = lines["density"].get_ydata()
    assert (heights > 0).all()
    at = lines["density"].get_xdata()[heights.argmax()]
    values, _ = _dense("relu_cnn")
    assert np.abs(values - at).min() < 0.05
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Hessian eigenvalue", "density")
    assert ax.get_yscale() == "log"
    assert found.plot(ax) is ax


# PyHessian with its defaults


def test_pyhessian_with_its_defaults_is_doubted() -> None:
    values, _ = _dense("relu_cnn")
    found = spectrum(cases.relu_cnn(), solver="pyhessian", density=True)
    assert not found.converged
    assert found.residuals.max() > 1e-2
    assert f"the worst {found.residuals.max():.1e}: raise" in found.doubts[0]
    assert any(d.startswith("the vectors are not orthogonal: ") for d in found.doubts)
    assert found.checks["orthogonality"] > 1e-3
    assert any("the density is not PyHessian's" in line for line in found.remarks())
    nodes, weights = found.nodes.ravel(), found.node_weights.ravel()
    assert wasserstein_distance(nodes, values, weights) < 0.03 * (values[0] - values[-1])


@pytest.mark.parametrize("options", [{"solver": "pyhessian"}, {"density": True}])
def test_a_density_is_remarked_with_pyhessian_only(options: dict[str, Any]) -> None:
    found = spectrum(cases.linear_regression(), top=1, **options)
    assert not any("not PyHessian's" in line for line in found.remarks())


# starting from another


def test_a_warm_start_gives_the_same_with_fewer_products() -> None:
    before = spectrum(cases.relu_cnn(), top=3, tol=1e-6)
    cold = spectrum(cases.relu_cnn(), top=3, tol=1e-3)
    warm = spectrum(cases.relu_cnn(), top=3, tol=1e-3, start=before)
    assert warm.converged
    assert warm.products < cold.products
    np.testing.assert_allclose(warm.eigenvalues, _dense("relu_cnn")[0][:3], rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_start_of_another_precision(dtype: torch.dtype) -> None:
    single = cases.tanh_mlp()
    batches = [(x.to(dtype), y) for x, y in single.batches]
    start = spectrum(Problem(single.net.to(dtype), batches), top=2)
    found = spectrum(cases.tanh_mlp(), top=2, tol=1e-8, start=start)
    np.testing.assert_allclose(found.eigenvalues, _dense("tanh_mlp")[0][:2], rtol=1e-10)


def test_a_start_with_another_mask() -> None:
    sparse = cases.masked_cnn()
    full = sparse.replace(mask=None)
    third = sparse.replace(mask=cases.coins(sparse.net, 0.8))
    for one, other in ((sparse, full), (full, sparse), (sparse, third), (third, sparse)):
        found = spectrum(other, top=3, tol=1e-8, start=spectrum(one, top=3))
        assert found.converged
        np.testing.assert_allclose(
            found.eigenvalues, _top(cases.dense_hessian(other), 3), rtol=1e-9
        )


def test_a_start_in_dead_weights_only() -> None:
    problem = cases.relu_cnn().replace(params="matrices")
    mask = cases.coins(problem.net, 0.5)
    others = Mask({name: ~alive for name, alive in mask.items()})
    one, other = (problem.replace(mask=m) for m in (mask, others))
    cold = spectrum(other, top=2, tol=1e-8)
    warm = spectrum(other, top=2, tol=1e-8, start=spectrum(one, top=2))
    np.testing.assert_allclose(warm.eigenvalues, cold.eigenvalues, rtol=1e-9)


def test_a_start_of_other_weights_is_refused() -> None:
    mlp, linear = cases.tanh_mlp(), cases.softmax_regression()
    wide = Problem(nn.Linear(6, 4).double(), cases.classes((9, 3), (6,), 4))
    for start, problem, params in (
        (mlp, cases.relu_cnn(), None),
        (mlp, mlp, "0.*"),
        (wide, linear, None),
    ):
        with pytest.raises(ValueError, match="a spectrum of other weights"):
            spectrum(problem, top=2, params=params, start=spectrum(start, top=2))


# ends of very different size


def test_residuals_of_a_small_end_are_relative_to_the_matrix() -> None:
    net = nn.Linear(30, 1, bias=False)
    x = torch.diag(torch.logspace(1, -1, 30))
    found = spectrum(Problem(net, [(x, torch.zeros(30, 1))], loss=F.mse_loss), which="smallest")
    assert found.doubts == []


def test_pairs_whose_complement_was_not_probed_are_doubted() -> None:
    for products in range(5, 60):
        found = spectrum(cases.relu_cnn(), top=1, tol=1e-3, max_matvecs=products)
        if (found.residuals <= 1e-3).all():
            break
    assert any("probed" in doubt for doubt in found.doubts)
    assert not found.converged
