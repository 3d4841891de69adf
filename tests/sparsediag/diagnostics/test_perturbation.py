"""The loss along eigenvectors: exact where the loss is quadratic, curved as the Hessian says."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Mask, Perturbation, Problem, perturbation, spectrum


def of_one_weight(loss: Callable[[Tensor, Tensor], Tensor], weight: float = 0.0) -> Problem:
    """A loss of one weight, in float64."""
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(net.weight, weight)
    one = torch.ones(2, 1, dtype=torch.float64)
    return Problem(net, [(one, one)], loss=loss)


def upwards(problem: Problem) -> Any:
    """Its spectrum, with the vector towards larger weights."""
    found = spectrum(problem, top=1)
    return replace(found, vectors=np.abs(found.vectors))


def other_data(problem: Problem, **options: Any) -> Problem:
    """A problem of the same net on other samples."""
    samples = [(x + 0.3, y) for x, y in cases.classes((13,), (4,), 3)]
    return Problem(problem.net, samples, **{"mask": problem.mask, **options})


def in_float32(problem: Problem) -> Problem:
    net = copy.deepcopy(problem.net).float()
    return Problem(net, [(x.float(), y) for x, y in problem.batches], mask=problem.mask)


def drawn(p: Perturbation) -> list[tuple[str, list[float]]]:
    """Style and heights of every line of the picture."""
    return [(line.get_linestyle(), list(line.get_ydata())) for line in p.plot().get_lines()]


# the loss and its model


def test_a_quadratic_loss_is_its_quadratic_model() -> None:
    problem = cases.linear_regression()
    p = perturbation(problem, top=3, points=7, span=2.0)
    assert p.loss.shape == p.quadratic.shape == (3, 7)
    assert p.loss == pytest.approx(p.quadratic, rel=1e-12)
    assert np.ptp(p.loss, axis=1).min() > 0.1
    assert p.radius.tolist() == [[2.0, 2.0]] * 3
    assert p.second == pytest.approx(p.eigenvalues, rel=1e-8)
    assert (p.second_error < 1e-8 * p.eigenvalues).all()
    assert p.agrees.all()


@pytest.mark.parametrize("name", ["tanh_mlp", "masked_mlp", "softmax_regression"])
def test_the_second_difference_at_0_is_the_eigenvalue(name: str) -> None:
    problem, step = cases.CASES[name](), 1e-3
    p = perturbation(problem, top=2, points=3, span=step, tol=1e-10)
    second = (p.loss[:, 0] - 2 * p.loss[:, 1] + p.loss[:, 2]) / step**2
    exact = torch.linalg.eigvalsh(cases.dense_hessian(problem)).flip(0)[:2].numpy()
    assert second == pytest.approx(exact, rel=1e-4)
    assert p.eigenvalues == pytest.approx(exact, rel=1e-8)
    assert p.curvature == pytest.approx(exact, rel=1e-8)
    assert p.second == pytest.approx(exact, rel=1e-5)
    assert (abs(p.second - exact) <= p.second_error).all()


@pytest.mark.parametrize("name", cases.MASKED)
def test_the_model_touches_the_loss_at_the_weights(name: str) -> None:
    problem = cases.CASES[name]()
    p = perturbation(problem, points=3, span=1e-4)
    assert p.loss[0, 1] == p.quadratic[0, 1] == p.centre
    assert p.centre == pytest.approx(problem.value(), rel=1e-12)
    assert p.loss == pytest.approx(p.quadratic, abs=1e-9)
    assert p.quadratic[0, 2] - p.quadratic[0, 0] > 0  # the loss rises along +v
    assert p.weight_norm == pytest.approx(float(problem.weights.norm()), rel=1e-12)


def test_the_test_loss_along_eigenvectors_of_the_training_loss() -> None:
    train = cases.masked_mlp()
    test = other_data(train)
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


@pytest.mark.parametrize("name", ["masked_mlp", "masked_cnn"])
def test_the_accuracy_is_that_of_the_net_at_each_point(name: str) -> None:
    problem = cases.CASES[name]()
    p = perturbation(problem, along=spectrum(problem, top=2), top=2, points=5, span=2.0)
    vectors = torch.from_numpy(spectrum(problem, top=2).vectors)
    for i, vector in enumerate(vectors):
        for j, t in enumerate(p.distance):
            outputs = problem.outputs(problem.weights + t * vector)
            pairs = zip(outputs, problem.batches, strict=True)
            right = sum(int((out.argmax(1) == y).sum()) for out, (_, y) in pairs)
            assert p.accuracy[i, j] == right / problem.samples


def test_a_regression_has_no_accuracy() -> None:
    assert np.isnan(perturbation(cases.linear_regression(), points=3).accuracy).all()


# distances


def test_a_relative_span_is_in_units_of_the_live_weights() -> None:
    problem = cases.masked_mlp()
    norm = float(problem.weights.norm())
    relative = perturbation(problem, points=5, span=0.1, relative=True)
    absolute = perturbation(problem, points=5, span=0.1 * norm)
    assert relative.distance == pytest.approx(absolute.distance, rel=1e-12)
    assert relative.loss == pytest.approx(absolute.loss, rel=1e-12)
    assert relative.source["options"]["relative"]


def test_a_relative_span_shows_on_a_second_axis() -> None:
    p = perturbation(cases.masked_mlp(), points=5, span=0.1, relative=True)
    (upper,) = p.plot().child_axes
    assert upper.get_xlabel() == "distance / |w|"
    upper.figure.draw_without_rendering()
    low, high = upper.get_xlim()
    assert low < -0.1
    assert 0.1 < high < 0.12
    assert not replace(p, source={"options": {"relative": False}}).plot().child_axes


def test_weights_that_are_all_0_are_no_unit() -> None:
    with pytest.raises(ValueError, match=r"^relative=True: all live weights are 0; give the span"):
        perturbation(of_one_weight(lambda out, _: (out**2).mean()), relative=True)


# another loss


def test_another_loss_along_the_same_vectors() -> None:
    problem = cases.masked_mlp()
    other = other_data(problem)
    along = spectrum(problem, top=2)
    p = perturbation(problem, along=along, also=other, top=2, points=5)
    apart = perturbation(other, along=along, top=2, points=5)
    assert p.also_loss == pytest.approx(apart.loss, rel=1e-14)
    assert p.also_centre == apart.centre
    alone = perturbation(problem, along=along, top=2, points=5)
    assert p.loss.tolist() == alone.loss.tolist()
    assert (alone.also_loss.shape, alone.also_centre) == ((0, 0), None)
    assert p.source["options"]["also"] == other.digest
    assert alone.source["options"]["also"] is None


@pytest.mark.parametrize("changed", ["mask", "weights", "params"])
def test_another_loss_of_other_live_weights_is_refused(changed: str) -> None:
    problem = cases.masked_mlp()
    other = other_data(problem, **({"mask": None} if changed == "mask" else {}))
    if changed == "weights":
        net = copy.deepcopy(problem.net)
        net[0].bias.data.add_(1e-9)
        other = other.replace(net=net)
    if changed == "params":
        other = other.replace(params="matrices")
    with pytest.raises(ValueError, match=rf"^also has {other.size} other live weights; use the"):
        perturbation(problem, also=other)


def test_the_other_loss_is_dotted() -> None:
    problem = cases.masked_mlp()
    p = perturbation(problem, also=other_data(problem), top=2, points=5)
    styles = [style for style, _ in drawn(p)]
    assert styles == ["-", "--", ":", "-", "--", ":"]
    assert drawn(p)[2][1] == p.also_loss[0].tolist()
    texts = [text.get_text() for text in p.plot().get_legend().get_texts()]
    assert texts == [
        "eigenvector 1",
        "eigenvector 2",
        "quadratic model, valid to |",
        "the other loss",
    ]


# as far as the model is valid


def one_sided(out: Tensor, _: Tensor) -> Tensor:
    """1 + 2 w^2 + max(w, 0)^4: the model 1 + 2 w^2 is 10 % off at w = sqrt(0.2)."""
    return 1 + (2 * out**2 + out.clamp(min=0) ** 4).mean()


@pytest.mark.parametrize(("points", "plus"), [(21, 0.4), (201, 0.44), (20, 7 / 19)])
def test_the_radius_is_that_of_the_last_point_that_is_close(points: int, plus: float) -> None:
    problem = of_one_weight(one_sided)
    p = perturbation(problem, along=upwards(problem), points=points, span=1.0)
    assert p.curvature == pytest.approx(4)
    assert p.radius == pytest.approx(np.array([[1.0, plus]]))


def test_where_the_model_fails_at_once() -> None:
    p = perturbation(of_one_weight(lambda out, _: (2 * out**2 + abs(out)).mean()), points=5)
    assert p.radius.tolist() == [[0.0, 0.0]]
    assert p.remarks()[-1].endswith("valid to 10% (eigenvector 1 from 0 to 0)")


def test_a_model_that_comes_back_to_the_loss_is_not_valid_again() -> None:
    problem = of_one_weight(lambda out, _: 1 + (out**2 * (1 + out**2 * (1 - out**2))).mean())
    p = perturbation(problem, points=21, span=1.0)
    assert p.loss[0, -1] == pytest.approx(p.quadratic[0, -1])
    assert p.radius == pytest.approx(np.array([[0.3, 0.3]]))


def test_where_the_model_crosses_its_centre_it_is_still_valid() -> None:
    problem = of_one_weight(lambda out, _: 1 + (out**2 - out + 0.01 * out**3).mean())
    p = perturbation(problem, points=21, span=2.0)
    assert abs(p.quadratic - p.centre).min(initial=1, where=abs(p.distance) > 0) < 1e-12
    assert p.radius == pytest.approx(np.array([[2.0, 2.0]]))


def test_a_flat_loss_is_off_by_rounding_alone() -> None:
    def rough(out: Tensor, _: Tensor) -> Tensor:
        return 1 + (5e-16 * torch.round(4 * out)).mean()

    p = perturbation(of_one_weight(rough), points=5)
    assert (p.quadratic == 1).all()
    assert abs(p.loss - 1).max() > 0
    assert p.radius.tolist() == [[0.5, 0.5]]


def test_a_loss_that_is_not_finite_is_not_valid() -> None:
    def walled(out: Tensor, _: Tensor) -> Tensor:
        return 1 + torch.where(out > 0.25, torch.inf, out**2).mean()

    problem = of_one_weight(walled)
    p = perturbation(problem, along=upwards(problem), points=11, span=0.5)
    assert np.isinf(p.loss[0, -1])
    assert p.radius == pytest.approx(np.array([[0.5, 0.2]]))
    assert p.agrees.all()
    assert p.plot().get_ylim()[1] < 1.3


def test_ticks_on_the_model_show_where_it_ends() -> None:
    problem = of_one_weight(one_sided)
    p = perturbation(problem, along=upwards(problem), points=21, span=1.0)
    model = p.plot().get_lines()[1]
    assert p.distance[model.get_markevery()] == pytest.approx([0.4])
    quadratic = perturbation(cases.linear_regression(), points=5)
    assert quadratic.plot().get_lines()[1].get_markevery() == []


# the second difference


@pytest.mark.parametrize("name", cases.CASES)
def test_the_second_difference_agrees_on_every_net(name: str) -> None:
    p = perturbation(cases.CASES[name](), top=2, points=3)
    assert p.agrees.all()
    assert (p.second_error <= 1e-4 * p.eigenvalues).all()
    assert p.remarks()[0] == "second differences agree with the eigenvalues"


@pytest.mark.parametrize("name", ["tanh_mlp", "masked_mlp", "softmax_regression"])
def test_the_second_difference_in_float32(name: str) -> None:
    problem = cases.CASES[name]()
    exact = perturbation(problem, top=2, points=3).curvature
    p = perturbation(in_float32(problem), top=2, points=3)
    assert p.agrees.all()
    assert (abs(p.second - exact) <= p.second_error + p.reach).all()
    assert (p.second_error <= 0.02 * p.eigenvalues).all()


def test_a_wrong_eigenvalue_is_flagged() -> None:
    problem = cases.masked_mlp()
    right = spectrum(problem, top=2)
    values = right.eigenvalues * [1, 1.1]
    wrong = replace(right, eigenvalues=values, intervals=right.intervals * [[1], [1.1]])
    p = perturbation(problem, along=wrong, top=2, points=3)
    assert p.agrees.tolist() == [True, False]
    assert [row["agrees"] for row in p.table()] == ["yes", "no"]
    off = p.second[1] - values[1]
    assert off == pytest.approx(-0.1 * right.eigenvalues[1], rel=1e-3)
    assert [f"doubt: {line}" for line in p.findings] == p.remarks()[:1]
    assert p.findings[0].startswith("v.Hv differs from the eigenvalues")
    assert f"(eigenvector 2 by {off:+.2g})" in p.findings[0]


def test_eigenvectors_that_did_not_converge_are_told() -> None:
    problem = cases.tanh_mlp()
    p = perturbation(problem, along=spectrum(problem, top=1, max_matvecs=2), points=3)
    assert not p.reliable
    assert any("raise max_matvecs" in line for line in p.remarks())


def test_a_wide_interval_forgives_a_wrong_eigenvalue() -> None:
    problem = cases.masked_mlp()
    right = spectrum(problem, top=1)
    wide = right.intervals + 0.2 * right.eigenvalues[:, None] * [-1, 1]
    wrong = replace(right, eigenvalues=1.1 * right.eigenvalues, intervals=wide)
    p = perturbation(problem, along=wrong, points=3)
    assert p.reach == pytest.approx(0.2 * right.eigenvalues, rel=0.02)
    assert p.agrees.all()


def test_a_wrong_curvature_is_flagged() -> None:
    train = cases.masked_mlp()
    p = perturbation(other_data(train), along=spectrum(train, top=1), points=3)
    assert not replace(p, expected=1.01 * p.expected).agrees.any()


def test_vectors_of_another_loss_are_held_against_this_one() -> None:
    train = cases.masked_mlp()
    p = perturbation(other_data(train), along=spectrum(train, top=2), top=2, points=3)
    assert p.expected.tolist() == p.curvature.tolist() != p.eigenvalues.tolist()
    assert p.agrees.all()
    assert (p.reach < 1e-12).all()
    assert p.remarks()[0] == "second differences agree with v.Hv"


@pytest.mark.parametrize("options", [{"matrix": "fisher"}, {"norm": "filter"}])
def test_vectors_of_another_matrix_are_held_against_the_hessian(options: dict[str, Any]) -> None:
    problem = cases.tanh_mlp()
    p = perturbation(problem, along=spectrum(problem, top=1, **options), points=3)
    assert p.expected.tolist() == p.curvature.tolist()
    assert p.agrees.all()


def test_many_kinks_within_the_step_are_found() -> None:
    def kinked(out: Tensor, _: Tensor) -> Tensor:
        places = torch.linspace(0.99, 1.01, 2000, dtype=out.dtype)
        return F.relu(out - places).mean() + (out**2).mean()

    p = perturbation(of_one_weight(kinked, 1.0), points=3)
    assert p.eigenvalues == pytest.approx(2)
    assert p.second == pytest.approx(52, rel=0.05)  # 2000 kinks of 1 / 2000 in a range of 0.02
    assert not p.agrees.any()
    assert f"(eigenvector 1 by {p.second[0] - 2:+.2g})" in p.remarks()[0]
    assert p.remarks()[0].startswith("kinks of the loss")
    assert [row["agrees"] for row in p.table()] == ["kinks"]
    assert p.findings == []  # every net with ReLUs has them
    assert p.reliable


def test_a_kink_at_the_weights_blurs_the_second_difference() -> None:
    p = perturbation(of_one_weight(lambda out, _: (1 + out**2 + abs(out)).mean()), points=3)
    assert p.second_error > 1
    assert any("blur the second difference (eigenvector 1)" in line for line in p.remarks())


def test_weights_at_an_exact_fit() -> None:
    p = perturbation(of_one_weight(lambda out, y: F.mse_loss(out, y), 1.0), points=3)
    assert p.centre == 0
    assert p.second == pytest.approx(2)
    assert p.agrees.all()


# what cannot be


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
        ({"span": -1.0, "relative": True}, "span=-1.0"),
        ({"span": float("nan")}, "span=nan"),
        ({"top": 0}, "top=0 eigenvectors: need 1 or more"),
        ({"top": 99}, "top=99: need 1 or more, and at most one for each of 15 live weights"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        perturbation(cases.linear_regression(), **options)


def test_an_infinite_span() -> None:
    with pytest.raises(ValueError, match="span=inf"):
        perturbation(cases.linear_regression(), span=float("inf"))


# what stays as it was


def test_dead_weights_stay_dead_and_the_net_stays_as_it_was() -> None:
    problem = cases.masked_cnn()
    net = problem.net.train()
    net[1].eval()
    net[3].bias.requires_grad_(False)
    problem = problem.replace(batches=problem.batches)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    seen = []

    def look(net: nn.Module, _: Any) -> None:
        weights = dict(net.named_parameters())
        assert isinstance(problem.mask, Mask)
        seen.append(all((weights[n][~alive] == 0).all() for n, alive in problem.mask.items()))

    net.register_forward_pre_hook(look)
    torch.manual_seed(5)
    random = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    perturbation(problem, points=3, also=problem.replace(batches=problem.batches[:1]))
    assert all(seen)
    assert len(seen) > 6
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes
    assert [n for n, p in net.named_parameters() if not p.requires_grad] == ["3.bias"]
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), random[0])
    assert np.random.get_state()[1].tolist() == random[1]  # noqa: NPY002


def test_a_spectrum_that_is_followed_stays_as_it_was() -> None:
    problem = cases.tanh_mlp()
    along = spectrum(problem, top=2)
    kept = copy.deepcopy(along)
    perturbation(problem, along=along, points=3)
    assert along.vectors.tolist() == kept.vectors.tolist()
    assert along.source == kept.source


@pytest.mark.parametrize("also", [False, True])
def test_load_gives_what_was_saved(tmp_path: Path, also: bool) -> None:
    problem = cases.masked_mlp()
    p = perturbation(problem, top=2, points=5, also=other_data(problem) if also else None)
    back = Perturbation.load(p.save(tmp_path / "p.npz"))
    assert back.also_loss.tolist() == p.also_loss.tolist()
    assert back.also_centre == p.also_centre
    assert back.table() == p.table()
    assert back.remarks() == p.remarks()
    assert drawn(back) == drawn(p)


# progress, table and picture


def test_progress_counts_all_points() -> None:
    seen: list[tuple[int, int]] = []
    perturbation(cases.linear_regression(), top=2, points=3, progress=lambda *at: seen.append(at))
    assert seen == [(i, 6) for i in range(1, 7)]


def test_progress_counts_the_points_of_both_losses() -> None:
    problem, seen = cases.tanh_mlp(), []
    perturbation(problem, points=3, also=problem, progress=lambda *at: seen.append(at))
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


def test_the_table_has_the_second_difference_and_the_radius() -> None:
    problem = of_one_weight(one_sided)
    (row,) = perturbation(problem, along=upwards(problem), points=21, span=1.0).table()
    value, error = row["second difference"].split(" ± ")
    assert float(value) == pytest.approx(4, rel=1e-5)
    assert float(error) < 1e-4
    assert (row["eigenvalue"], row["curvature"], row["agrees"]) == ("4", "4", "yes")
    assert row["model valid to"] == "-1 / +0.4"


def test_the_remarks_are_two_lines() -> None:
    problem = of_one_weight(one_sided)
    p = perturbation(problem, along=upwards(problem), points=21, span=1.0)
    assert p.remarks() == [
        "second differences agree with the eigenvalues",
        "the quadratic model is valid to 10% (eigenvector 1 from -1 to 0.4)",
    ]


def test_the_picture_has_a_curve_and_a_dashed_model_for_each_vector() -> None:
    p = perturbation(cases.tanh_mlp(), top=2, points=5)
    lines = p.plot().get_lines()
    drawn = [p.loss[0], p.quadratic[0], p.loss[1], p.quadratic[1]]
    assert [line.get_ydata().tolist() for line in lines] == [y.tolist() for y in drawn]
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-", "--"]


def test_the_picture_is_as_high_as_the_losses() -> None:
    p = perturbation(cases.tanh_mlp(), points=5)
    low, high = p.loss.min(), p.loss.max()
    steep = replace(p, quadratic=100 * p.quadratic)
    assert steep.plot().get_ylim() == pytest.approx(
        (low - 0.05 * (high - low), high + 0.05 * (high - low))
    )


def overflowing() -> Perturbation:
    p = perturbation(cases.linear_regression(), points=5)
    loss = p.loss.copy()
    loss[0, [0, 4]] = np.inf, np.nan
    return replace(p, loss=loss)


def test_an_overflow_is_shown_and_not_fatal(tmp_path: Path) -> None:
    from sparsediag.plotting import style as plotting

    p = overflowing()
    plotting.save(p.plot().figure, tmp_path / "picture")
    assert p.table()[0]["rise at -0.5"] == "inf"


def test_an_overflow_everywhere_is_shown_and_not_fatal() -> None:
    p = overflowing()
    assert replace(p, loss=np.full_like(p.loss, np.inf)).plot().has_data()
