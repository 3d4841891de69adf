"""Traces against that of the dense Hessian, and whether their errors can be believed."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
from scipy.stats import t as student
from torch import nn

from sparsediag import Curvature, Mask, Problem, Result, Trace, trace


def _dense(name: str) -> float:
    return float(cases.hessian_of(name).trace())


def _diagonal() -> Problem:
    """A Hessian with known traces: twice the squared inputs' means on the diagonal."""
    net = nn.Linear(6, 1, bias=False).double()
    x = torch.eye(6).double() * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).double()
    return Problem(net, [(x, torch.zeros(6, 1).double())], loss=nn.MSELoss())


@pytest.mark.parametrize(
    ("name", "tol", "sketch"), [("softmax_regression", 0.06, 5), ("masked_cnn", 0.2, 10)]
)
def test_the_interval_holds_the_trace_as_often_as_it_says(
    name: str, tol: float, sketch: int
) -> None:
    problem, true = cases.CASES[name](), _dense(name)
    options: dict[str, Any] = {"tol": tol, "sketch": sketch, "mode": "retained"}
    found = [trace(problem, seed=seed, max_matvecs=48, **options) for seed in range(100)]
    assert sum(abs(f.trace - true) <= f.error for f in found) >= 90
    assert len({f.trace for f in found}) == 100
    stopped = [f for f in found if f.converged]
    assert len(stopped) > 5
    assert all(f.error <= tol * abs(f.trace) for f in stopped)
    assert all(f.products == 48 for f in found if not f.converged)
    assert np.mean([f.trace for f in found]) == pytest.approx(true, rel=0.02)
    assert min(f.error for f in found) > 0


def test_hutchinson_is_the_mean_over_random_signs() -> None:
    true = _dense("tanh_mlp")
    found = trace(cases.tanh_mlp(), sketch=0, tol=1e-9, max_matvecs=300)
    assert found.captured == 0
    assert len(found.samples) == found.products == 300
    assert found.trace == found.samples.mean()
    quantile = student.ppf(0.975, 299)
    assert found.error == pytest.approx(quantile * found.samples.std(ddof=1) / 300**0.5)
    assert abs(found.trace - true) <= 2 * found.error
    hessian = cases.hessian_of("tanh_mlp")
    offsets = hessian - torch.diag(hessian.diagonal())
    spread = (2 * offsets.square().sum()) ** 0.5  # of v . Hv over random signs
    assert found.samples.std() == pytest.approx(float(spread), rel=0.2)


def test_hutchinson_is_exact_on_a_diagonal() -> None:
    found = trace(_diagonal(), sketch=0)
    assert found.trace == pytest.approx(2 * 91 / 6, rel=1e-12)
    assert found.error < 1e-12
    assert found.converged
    assert found.products == 10  # as few samples as are believed


@pytest.mark.parametrize("more", [0, 7])
def test_a_sketch_of_everything_is_exact(more: int) -> None:
    problem = cases.linear_regression()
    found = trace(problem, sketch=problem.size + more)
    assert found.trace == pytest.approx(_dense("linear_regression"), rel=1e-12)
    assert found.trace == found.captured
    assert found.error == 0
    assert found.converged
    assert found.products == 2 * problem.size


def test_a_sketch_takes_the_spread_away() -> None:
    plain, sketched = (trace(cases.softmax_regression(), sketch=s, tol=1e-9) for s in (0, 12))
    assert sketched.samples.std() < 0.3 * plain.samples.std()
    assert sketched.captured > 0.5 * sketched.trace


@pytest.mark.parametrize("name", ["tanh_mlp", "masked_mlp"])
def test_the_mean_eigenvalue_is_over_live_weights(name: str) -> None:
    problem = cases.CASES[name]()
    found = trace(problem, tol=0.5)
    assert found.mean == pytest.approx(found.trace / problem.size)
    assert len(cases.hessian_of(name)) == problem.size


def test_some_of_the_weights_and_the_dense_view() -> None:
    problem = cases.masked_cnn()
    part = trace(problem, params="7.*", sketch=99)
    hessian = cases.hessian_of("masked_cnn").diagonal()
    names = [n for n, c in problem.live.counts().items() for _ in range(c)]
    expected = sum(float(h) for n, h in zip(names, hessian, strict=True) if n.startswith("7."))
    assert part.trace == pytest.approx(expected, rel=1e-10)

    whole = trace(problem, dense=True, sketch=200, max_matvecs=500)
    open_net = problem.replace(mask=None)
    assert whole.trace == pytest.approx(float(cases.dense_hessian(open_net).trace()), rel=1e-10)
    assert whole.trace != pytest.approx(_dense("masked_cnn"), rel=0.01)


@pytest.mark.parametrize("name", ["tanh_mlp", "linear_regression"])
def test_the_trace_of_the_fisher_is_the_mean_squared_gradient(name: str) -> None:
    problem = cases.CASES[name]()
    found = trace(problem, matrix="fisher", sketch=83, max_matvecs=200)
    squares = []
    for x, y in problem.batches:
        for i in range(len(y)):
            one = Problem(problem.net, [(x[i : i + 1], y[i : i + 1])], loss=problem.loss)
            squares.append(float(one.gradient().square().sum()))
    assert found.trace == pytest.approx(np.mean(squares), rel=1e-10)


def test_pyhessian_gives_its_samples() -> None:
    true = _dense("tanh_mlp")
    found = trace(cases.tanh_mlp(), solver="pyhessian", tol=1e-9, max_matvecs=150)
    assert len(found.samples) == found.products == 150
    assert found.captured == 0
    assert found.trace == pytest.approx(found.samples.mean())
    assert abs(found.trace - true) <= 2 * found.error
    assert not found.converged
    assert found.source["options"]["solver"] == "pyhessian"


def test_pyhessian_stops_before_its_error_is_small() -> None:
    found = trace(cases.linear_regression(), solver="pyhessian", tol=0.05)
    assert found.products == len(found.samples) < 200
    assert found.error > 0.05 * found.trace
    assert not found.converged


def test_the_limit_of_products_ends_it() -> None:
    found = trace(cases.relu_cnn(), tol=1e-6, max_matvecs=33)
    assert found.products == 33
    assert len(found.samples) == 13
    assert not found.converged
    assert found.table()[0]["verdict"] == "NOT converged"


def test_the_number_of_samples_follows_from_the_tolerance() -> None:
    found = trace(cases.softmax_regression(), tol=0.02, sketch=0)
    assert found.converged
    assert found.products > 200


def test_a_limit_that_is_too_low_says_which_is_not() -> None:
    options: dict[str, Any] = {"sketch": 0, "tol": 0.03}
    short = trace(cases.softmax_regression(), max_matvecs=30, **options)
    assert not short.converged
    (doubt,) = short.doubts
    advice = re.search(r"max_matvecs=(\d+) would do \(about [\d.]+ min\), or tol=([\d.]+)", doubt)
    assert advice
    assert "after 30 products, more than tol=0.03" in doubt
    whole = trace(cases.softmax_regression(), **options)
    assert whole.products / 2 < int(advice[1]) < 2 * whole.products
    options["tol"] = float(advice[2])
    assert trace(cases.softmax_regression(), max_matvecs=30, **options).converged


def test_products_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    count, call = 0, Curvature.__call__

    def counted(self: Curvature, vector: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return call(self, vector)

    monkeypatch.setattr(Curvature, "__call__", counted)
    seen: list[tuple[int, int]] = []
    found = trace(cases.tanh_mlp(), sketch=4, tol=0.3, progress=lambda *now: seen.append(now))
    assert found.products == count == 8 + len(found.samples)
    assert [done for done, _ in seen] == [*range(1, count + 1)]
    assert seen[0] == (1, 200)  # until the samples tell how many are needed
    assert all(done <= total for done, total in seen)


def test_a_killed_estimate_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, resume = trace(cases.masked_cnn(), sketch=4, tol=1e-3, max_matvecs=40), tmp_path / "kept"

    def stop(done: int, _: int) -> None:
        if done == 30:
            raise KeyboardInterrupt

    def estimate(seed: int = 0, **how: Any) -> Trace:
        options: dict[str, Any] = {"sketch": 4, "tol": 1e-3, "max_matvecs": 40, "resume": resume}
        return trace(cases.masked_cnn(), seed=seed, **options, **how)

    with pytest.raises(KeyboardInterrupt):
        estimate(progress=stop)
    calls: list[int] = []
    call = Curvature.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Curvature, "__call__", lambda *a: (calls.append(1), call(*a))[1])
        again = estimate()
    assert len(calls) == 4 + 40 - 30  # the sketch, and what was missing
    assert (again.trace, again.error, again.products) == (whole.trace, whole.error, 40)
    assert again.samples.tobytes() == whole.samples.tobytes()
    with pytest.raises(ValueError, match=r"kept holds unfinished work with other options"):
        estimate(seed=1)


def test_the_same_seed_gives_the_same_bits() -> None:
    one, same, other = (
        trace(cases.tanh_mlp(), seed=seed, tol=0.3, mode="retained") for seed in (1, 1, 2)
    )
    assert one.trace == same.trace
    assert one.samples.tobytes() == same.samples.tobytes()
    assert one.trace != other.trace


@pytest.mark.parametrize("sketch", [3, 15])
def test_the_picture_ends_at_the_estimate(sketch: int) -> None:
    found = trace(cases.linear_regression(), sketch=sketch, tol=0.2)
    ax = found.plot()
    (line,) = ax.get_lines()
    assert line.get_ydata()[-1] == pytest.approx(found.trace)
    assert line.get_xdata()[-1] == len(found.samples)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("samples", "trace")
    low, high = ax.get_ylim()
    assert low <= found.trace - found.error < high
    assert found.plot(ax) is ax


def test_a_file_gives_the_same_trace_back(tmp_path: Path) -> None:
    found = trace(cases.tanh_mlp(), tol=0.5)
    back = Result.load(found.save(tmp_path / "trace.npz"))
    assert isinstance(back, Trace)
    for field in dataclasses.fields(Trace):
        here, there = getattr(found, field.name), getattr(back, field.name)
        assert np.array_equal(here, there) if isinstance(here, np.ndarray) else here == there
        assert type(here) is type(there)
    assert json.loads(json.dumps(found.json(), allow_nan=False))["trace"] == found.trace
    (row,) = found.table()
    assert float(row["trace"]) == pytest.approx(found.trace, rel=1e-5)
    assert float(row["± (95 %)"]) == pytest.approx(found.error, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "hutchpp"}, "unknown solver 'hutchpp'"),
        ({"tol": 0.0}, "tol=0.0, sketch=10: need a positive tol"),
        ({"tol": float("nan")}, "tol=nan, sketch=10: need a positive tol"),
        ({"sketch": -1}, "tol=0.02, sketch=-1: need"),
        ({"max_matvecs": 29}, "max_matvecs=29: need 30 or more for sketch=10"),
        ({"sketch": 0, "max_matvecs": 9}, "max_matvecs=9: need 10 or more for sketch=0"),
        ({"matrix": "fishr"}, "unknown matrix 'fishr'; did you mean 'fisher'?"),
        ({"mode": "taep"}, "unknown mode of products 'taep'; did you mean 'tape'?"),
        ({"memory": -1.0}, "memory=-1.0: need 0 GiB or more"),
        ({"params": "nonsense.*"}, "unknown trainable weight 'nonsense.*'"),
        ({"solver": "pyhessian", "matrix": "fisher"}, "PyHessian knows the Hessian only"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        trace(cases.tanh_mlp(), **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_net_without_live_weights_is_refused() -> None:
    net = nn.Linear(4, 3, bias=False).double()
    mask = Mask({"weight": torch.zeros(3, 4, dtype=torch.bool)})
    problem = Problem(net, cases.classes((5,), (4,), 3), mask=mask)
    with pytest.raises(ValueError, match="live weight"):
        trace(problem)
