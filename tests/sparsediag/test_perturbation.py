"""The loss along eigenvectors: exact where the loss is quadratic, curved as the Hessian says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
from torch import nn

from sparsediag import Mask, Perturbation, Problem, perturbation, spectrum


def test_a_quadratic_loss_is_its_quadratic_model() -> None:
    problem = cases.linear_regression()
    p = perturbation(problem, top=3, points=7, span=2.0)
    assert p.loss.shape == p.quadratic.shape == (3, 7)
    assert p.loss == pytest.approx(p.quadratic, rel=1e-12)
    assert np.ptp(p.loss, axis=1).min() > 0.1


@pytest.mark.parametrize("name", ["tanh_mlp", "masked_mlp", "softmax_regression"])
def test_the_second_difference_at_0_is_the_eigenvalue(name: str) -> None:
    problem, step = cases.CASES[name](), 1e-3
    p = perturbation(problem, top=2, points=3, span=step, tol=1e-10)
    second = (p.loss[:, 0] - 2 * p.loss[:, 1] + p.loss[:, 2]) / step**2
    exact = torch.linalg.eigvalsh(cases.dense_hessian(problem)).flip(0)[:2].numpy()
    assert second == pytest.approx(exact, rel=1e-4)
    assert p.eigenvalues == pytest.approx(exact, rel=1e-8)
    assert p.curvature == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("name", cases.MASKED)
def test_the_model_touches_the_loss_at_the_weights(name: str) -> None:
    problem = cases.CASES[name]()
    p = perturbation(problem, points=3, span=1e-4)
    assert p.loss[0, 1] == p.quadratic[0, 1] == problem.value()
    assert p.loss == pytest.approx(p.quadratic, abs=1e-9)
    assert p.quadratic[0, 2] - p.quadratic[0, 0] > 0  # the loss rises along +v
    assert p.weight_norm == pytest.approx(float(problem.weights.norm()), rel=1e-12)


def test_the_test_loss_along_eigenvectors_of_the_training_loss() -> None:
    train = cases.masked_mlp()
    other = [(x + 0.3, y) for x, y in cases.classes((13,), (4,), 3)]
    test = Problem(train.net, other, mask=train.mask)
    along = spectrum(train, top=3, tol=1e-8)
    p = perturbation(test, along=along, top=2, points=5, span=0.4)
    assert p.eigenvalues.tolist() == along.eigenvalues[:2].tolist()
    for i, vector in enumerate(torch.from_numpy(along.vectors[:2])):
        line = [test.value(test.weights + t * vector) for t in p.distance]
        assert p.loss[i] == pytest.approx(line, rel=1e-12)
        assert p.curvature[i] == pytest.approx(float(vector @ test.hvp(vector)), rel=1e-9)
        slope = (p.quadratic[i, -1] - p.quadratic[i, 0]) / 0.8
        assert slope == pytest.approx(float(test.gradient() @ vector), rel=1e-9)
    assert np.abs(p.curvature - p.eigenvalues).min() > 1e-3


def test_eigenvectors_of_a_net_with_other_live_weights_are_refused() -> None:
    masked = cases.masked_mlp()
    dense = Problem(masked.net, masked.batches)
    with pytest.raises(ValueError, match=rf"{dense.size} coordinates, .* {masked.size} live"):
        perturbation(masked, along=spectrum(dense, top=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 1}, "points=1: need at least 2"),
        ({"span": 0.0}, "span=0.0: need a positive number"),
        ({"span": -1.0}, "span=-1.0"),
        ({"span": float("nan")}, "span=nan"),
        ({"top": 0}, "top=0 eigenvalues"),
        ({"top": 99}, "top=99 eigenvalues asked of a problem with 15 live weights"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        perturbation(cases.linear_regression(), **options)


def test_an_infinite_span() -> None:
    with pytest.raises(ValueError, match="span=inf"):
        perturbation(cases.linear_regression(), span=float("inf"))


def test_dead_weights_stay_dead_and_the_net_stays_as_it_was() -> None:
    problem = cases.masked_cnn()
    net = problem.net.train()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    seen = []

    def look(net: nn.Module, _: Any) -> None:
        weights = dict(net.named_parameters())
        assert isinstance(problem.mask, Mask)
        seen.append(all((weights[n][~alive] == 0).all() for n, alive in problem.mask.items()))

    problem.net.register_forward_pre_hook(look)
    perturbation(problem, points=3)
    assert all(seen)
    assert len(seen) > 6
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert all(m.training for m in net.modules())
    assert all(p.grad is None for p in net.parameters())


def test_progress_counts_all_points() -> None:
    seen: list[tuple[int, int]] = []
    perturbation(cases.linear_regression(), top=2, points=3, progress=lambda *at: seen.append(at))
    assert seen == [(i, 6) for i in range(1, 7)]


def test_the_table_has_the_rise_at_both_ends() -> None:
    p = perturbation(cases.tanh_mlp(), points=5, span=0.2)
    (row,) = p.table()
    centre = cases.tanh_mlp().value()
    assert row["rise at -0.2"] == f"{p.loss[0, 0] - centre:.4g}"
    assert row["rise at 0.2"] == f"{p.loss[0, -1] - centre:.4g}"


def test_the_table_of_an_even_number_of_points() -> None:
    p = perturbation(cases.tanh_mlp(), points=4, span=0.2)
    assert p.table()[0]["rise at 0.2"] == f"{p.loss[0, -1] - cases.tanh_mlp().value():.4g}"


def test_the_picture_has_a_curve_and_a_dashed_model_for_each_vector() -> None:
    p = perturbation(cases.tanh_mlp(), top=2, points=5)
    lines = p.plot().get_lines()
    drawn = [p.loss[0], p.quadratic[0], p.loss[1], p.quadratic[1]]
    assert [line.get_ydata().tolist() for line in lines] == [y.tolist() for y in drawn]
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-", "--"]


def overflowing() -> Perturbation:
    p = perturbation(cases.linear_regression(), points=5)
    loss = p.loss.copy()
    loss[0, [0, 4]] = np.inf, np.nan
    return replace(p, loss=loss)


def test_an_overflow_is_shown_and_not_fatal(tmp_path: Path) -> None:
    from sparsediag import plotting

    p = overflowing()
    plotting.save(p.plot().figure, tmp_path / "picture")
    assert p.table()[0]["rise at -0.5"] == "inf"


def test_an_overflow_everywhere_is_shown_and_not_fatal() -> None:
    p = overflowing()
    assert replace(p, loss=np.full_like(p.loss, np.inf)).plot().has_data()
