"""What the forerunner's pictures of curvature and landscapes draw, and what their claims count."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from figures.histories import before_first_drop
from figures.loss_surfaces import log_distance, mean_rise
from figures.lottery import fig02, fig03, fig05, fig10, fig11, figa12, tablea1
from figures.lottery.runs import LEVELS
from figures.scales import SCALES
from sparsediag import models
from tests.figures.judging import outcomes, verdict

LAPTOP = SCALES["laptop"]
MIDDLE = LEVELS[11]
X = np.linspace(-1, 1, 5)


def curvature(value: float, norm: float = 2.0) -> Any:
    return SimpleNamespace(eigenvalues=np.array([value]), weight_norm=norm)


def plane(loss: Any) -> Any:
    return SimpleNamespace(loss=np.broadcast_to(loss, (5, 5)), axes=np.stack([X, X]))


def line(loss: np.ndarray, centre: float) -> Any:
    return SimpleNamespace(loss=loss[None], centre=centre, distance=X)


def images(*heights: float, centre: float = 1.0) -> Any:
    loss = np.stack([np.full((5, 5), height) for height in heights])
    return SimpleNamespace(
        loss=loss, mean=loss.mean(0), centre=np.full(len(loss), centre), clamp=8.0,
        axes=np.stack([X, X]), labels=["gradient sign (1/255)", "random signs (1/255)"],
    )  # fmt: skip


def history(eigenvalues: list[float], *, tested: float = 0.7, norm: float = 2.0) -> list[dict]:
    rows = [
        {
            "epoch": i, "lr": (0.1, 0.1, 0.01, 0.001)[i], "train_accuracy": 0.1 * i + 0.05,
            "val_accuracy": 0.1 * i, "eigenvalue": value, "weight_norm": norm,
        }
        for i, value in enumerate(eigenvalues)
    ]  # fmt: skip
    rows[2] |= {"best": True, "test_accuracy": tested}
    return rows


def zeros(*small: float) -> Any:
    """Blocks in pairs, a stage each; only the second of a pair counts."""
    return SimpleNamespace(
        small=np.array([share for value in small for share in (0.99, value)]),
        stage_last=[False, True] * len(small),
    )


MADE: dict[Any, Callable[[Any], Any]] = {
    fig02: lambda label: curvature({"ReLU": 100.0, "Swish": 20.0, "Mish": 10.0}[label[0]]),
    fig05: lambda label: plane(1.0 + fig05.KINDS.index(label[0])),
    fig10: lambda label: line(1 + (1 + label[1]) * X**2, 1.0),
    fig11: lambda label: images(2.0, 3.0),
    figa12: lambda label: history([1.0, 5.0, 4.0, 3.0]),
    tablea1: lambda label: zeros(0.1, 0.2, 0.3, 0.4),
}


def made(module: Any) -> dict[Any, Any]:
    return {label: MADE[module](label) for label in module.MEASUREMENTS}


def drawn(module: Any, results: dict[Any, Any]) -> Any:
    return (module.draw if hasattr(module, "draw") else module.table)(results, LAPTOP)


def margins(module: Any, results: dict[Any, Any]) -> list[list[float]]:
    return [list(claim.margin(results).values()) for claim in module.CLAIMS]


def curves(ax: Any) -> dict[str, Any]:
    return {one.get_label(): one for one in ax.get_lines()}


@pytest.mark.parametrize("module", MADE, ids=lambda module: module.__name__)
def test_it_copes_with_what_is_missing(module: Any) -> None:
    whole = made(module)
    parts = [{label: whole[label]} for label in [next(iter(whole)), list(whole)[-1]]]
    for kind in {label[0] for label in whole}:
        parts.append({label: r for label, r in whole.items() if label[0] == kind})
        parts.append({label: r for label, r in whole.items() if label[0] != kind})
    for part in parts:
        assert drawn(module, part) is not None
        for claim in module.CLAIMS:
            verdict(claim, part)
    assert set(outcomes(module.CLAIMS, {})) == {"not run"}


@pytest.mark.parametrize("module", MADE, ids=lambda module: module.__name__)
def test_its_trainings_are_those_of_the_papers_figure_1(module: Any) -> None:
    for need in module.MEASUREMENTS.values():
        assert (need.run.model.name, need.run.data) == ("resnet18", "cifar100")
        assert bool(need.run.record.eigenvalue_every) == (module is figa12)
        assert need.run.mask.density in LEVELS.values()


def test_figure_2_has_a_mean_over_seeds_and_hollow_marks_for_dead_weights() -> None:
    results = {
        label: curvature(10.0 ** (1 + label[3]) * (2 if label[2] == "dense" else 1))
        for label in fig02.MEASUREMENTS
        if label[3] < 3
    }
    left, right = fig02.draw(results, LAPTOP).axes
    marks = [one for one in left.get_lines() if one.get_marker() in "osD"]
    assert len(marks) == 9 + 3
    assert len([one for one in right.get_lines() if one.get_marker() in "osD"]) == 9
    for mark in marks:
        hollow = mark.get_markerfacecolor() == "white"
        np.testing.assert_allclose(mark.get_ydata(), 200 if hollow else 100)
    dots = [one for one in right.get_lines() if one.get_marker() == "."]
    np.testing.assert_allclose(dots[0].get_ydata(), [40, 400, 4000])
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["67", "91", "97"]


def test_figure_2_counts_powers_of_ten_with_and_without_the_norm() -> None:
    results = {
        label: curvature(100 if label[0] == "ReLU" else 10, 1 if label[0] == "ReLU" else 10)
        for label in fig02.MEASUREMENTS
    }
    raw, scaled = margins(fig02, results)
    np.testing.assert_allclose(raw, [1] * 6)
    np.testing.assert_allclose(scaled, [-1] * 6)


def test_figure_2_leaves_out_what_has_no_logarithm() -> None:
    results = made(fig02) | {("Swish", MIDDLE, "live", 0): curvature(-1.0)}
    assert set(fig02.CLAIMS[0].effects(results)) == {1, 2, 3, 4, 5}


def test_figure_3_follows_the_signal_through_the_block() -> None:
    steps = fig03.boxes(fig03.build_net().get_submodule("layer1.1"))
    assert [step.text for step in steps] == [
        "input", "3x3 conv", "batch norm", "+", "ReLU", "3x3 conv", "batch norm", "+", "+", "ReLU",
        "output",
    ]  # fmt: skip
    sums = [(steps[s.source].text, s.on_skip, s.is_new) for s in steps if s.text == "+"]
    assert sums == [
        ("input", "batch norm", True),
        ("ReLU", "batch norm", True),
        ("input", "", False),
    ]


def test_figure_3_tells_how_shapes_are_fitted() -> None:
    steps = fig03.boxes(fig03.build_net().get_submodule("layer2.0"))
    sides = [step.on_skip.split("\n") for step in steps if step.text == "+"]
    assert sides[0] == ["pool 2x2", "pad 64 → 128", "batch norm"]
    assert sides[2] == ["1x1 conv, /2", "batch norm"]


def test_figure_3_draws_no_skip_where_there_is_none() -> None:
    block = models.build("resnet18", width=2).get_submodule("layer1.1")
    assert [step.is_new for step in fig03.boxes(block) if step.text == "+"] == [False]
    fig = fig03.draw({}, LAPTOP)
    assert "16 new skips" in fig.get_suptitle()
    for ax in fig.axes:
        colours = [to_hex(one.get_color()) for one in ax.get_lines()]
        assert colours.count(to_hex(fig03.NEW)) == 2


def test_figure_5_tells_the_factor_to_the_plain_net_and_that_of_chance() -> None:
    plain = {("vanilla", seed): plane(1.0 + seed) for seed in range(2)}
    results = plain | {("skip", seed): plane(3 * (1.0 + seed)) for seed in range(2)}
    fig = fig05.draw(results, LAPTOP)
    assert [ax.get_title() for ax in fig.axes[:2]] == [
        "vanilla\nfactor 2.00 by chance",
        "skip\nfactor 3.00",
    ]
    assert len({tuple(ax.collections[0].levels) for ax in fig.axes[:2]}) == 1


def test_figure_5_compares_with_label_smoothing_seed_by_seed() -> None:
    heights = {"vanilla": 1.0, "skip": 0.001, "LS": 10.0, "LRsI": 1.0}
    results = {label: plane(heights[label[0]]) for label in fig05.MEASUREMENTS}
    np.testing.assert_allclose(margins(fig05, results), [[0.5] * 6])
    del results["LS", 1]
    assert len(margins(fig05, results)[0]) == 5


def test_a_point_that_overflows_is_left_out_of_the_distance() -> None:
    loss = np.array([1.0, np.inf, np.nan, 100.0])
    assert log_distance(loss, np.ones(4)) == pytest.approx(1.0)


def test_figure_10_draws_the_mean_change_and_the_range() -> None:
    of_three = [label for label in fig10.MEASUREMENTS if label[1] < 3]
    results = {label: line(2 + (1 + label[1]) * X**2, 2.0) for label in of_three}
    (ax,) = fig10.draw(results, LAPTOP).axes
    assert set(curves(ax)) == set(fig10.LINE_STYLES)
    for curve in curves(ax).values():
        np.testing.assert_allclose(curve.get_ydata(), 2 * X**2)
    assert len(ax.collections) == 2
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0, 3)


def test_figure_10_counts_the_mean_rise() -> None:
    steep = {"vanilla": 4.0, "AT+TRT": 1.0}
    results = {
        label: line(1 + steep.get(label[0], 9.0) * X**2, 1.0) for label in fig10.MEASUREMENTS
    }
    np.testing.assert_allclose(margins(fig10, results), [[1.5] * 6])


def test_figure_11_counts_the_rise_of_the_clamped_loss() -> None:
    assert mean_rise(images(3.0, 8.0, centre=1.0)) == pytest.approx(4.5)
    assert mean_rise(images(8.0, centre=20.0)) == 0
    heights = {"vanilla": 4.0, "LRsI": 3.0, "skip": 5.0, "LS": 2.0}
    results = {label: images(heights[label[0]]) for label in fig11.MEASUREMENTS}
    np.testing.assert_allclose(margins(fig11, results), [[2 / 3] * 6])


def test_figure_11_draws_the_first_seed_to_one_height() -> None:
    results = {(kind, seed): images(2.0 + seed) for kind in fig11.KINDS for seed in (1, 2)}
    fig = fig11.draw(results, LAPTOP)
    assert [ax.get_title() for ax in fig.axes] == [
        f"{kind}\nloss, mean rise 2.00" for kind in fig11.KINDS
    ]
    assert len({ax.get_zlim() for ax in fig.axes}) == 1
    assert fig.axes[0].get_xlabel() == "gradient sign (1/255)"


def test_figure_a12_shows_accuracy_curvature_and_drops() -> None:
    results = {("vanilla", MIDDLE, seed): history([1.0, 9.0, -4.0, 3.0]) for seed in range(2)}
    top, middle, bottom = figa12.draw(results, LAPTOP).axes
    thick = [one for one in middle.get_lines() if one.get_linewidth() > 1]
    thin = [one for one in middle.get_lines() if one.get_linewidth() == 0.4]
    assert (len(thick), len(thin)) == (1, 1)
    np.testing.assert_allclose(thick[0].get_ydata(), [1, 9, np.nan, 3])
    np.testing.assert_allclose(thick[0].get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(bottom.get_lines()[0].get_ydata(), [4, 36, np.nan, 12])
    drops = [one.get_xdata()[0] for one in bottom.get_lines() if one.get_linestyle() == ":"]
    assert drops == [2.5, 3.5]
    (cross,) = [one for one in top.get_lines() if one.get_marker() == "X"]
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (3, pytest.approx(20))
    level = [one.get_ydata() for one in top.get_lines() if list(one.get_xdata()) == [0, 1]]
    np.testing.assert_allclose(level, [[70, 70]])


def test_figure_a12_compares_phases_seed_by_seed() -> None:
    results = {
        (kind, MIDDLE, seed): trained
        for seed in range(3)
        for kind, trained in {
            "vanilla": history([1.0, 5.0, 5.0, 10.0]),
            "AT+TRT": history([10.0, 5.0, 5.0, 1.0], tested=0.73, norm=20.0),
        }.items()
    }
    accuracy, early, late = margins(figa12, results)
    np.testing.assert_allclose(accuracy, [3] * 3)
    np.testing.assert_allclose(early, [1] * 3)
    np.testing.assert_allclose(late, [1] * 3)


def test_figure_a12_without_a_drop_takes_the_whole_training() -> None:
    rows = [{"lr": 0.1}] * 40
    assert before_first_drop(rows) == figa12.after_last_drop(rows) == rows
    assert figa12.first_twentieth(rows) == rows[:2]


def test_table_a1_has_the_papers_numbers_beside_ours() -> None:
    results = {
        label: zeros(*(np.array([0.1, 0.2, 0.3, 0.4]) + 0.01 * label[2]))
        for label in tablea1.MEASUREMENTS
        if label[2] < 3
    }
    table = tablea1.table(results, LAPTOP)
    rows = {row[0]: row[1:] for row in table.rows}
    assert len(rows) == 14
    assert rows["97 %, ReLU"][0] == 27.99
    assert rows["20 %, Swish"][6] == 0.16
    assert rows["91 %, ReLU"][::2] == (None,) * 4
    assert [str(cell) for cell in rows["91 %, Swish"][1::2]] == [
        f"{mean}.00 ± 2.48" for mean in (11, 21, 31, 41)
    ]
    assert "| 36 %, ReLU | 32.29 | 11.00 ± 2.48 |" in table.markdown()
    assert table.csv().startswith('sparsity,"1, paper","1, here","1, here ±"')


def test_table_a1_takes_the_sparsities_that_all_seeds_have() -> None:
    results = {("ReLU", MIDDLE, seed): zeros(0.1, 0.2, 0.3, 0.5) for seed in range(3)}
    results["ReLU", LEVELS[1], 0] = zeros(0.9, 0.9, 0.9, 0.1)
    results |= {("Swish", MIDDLE, seed): zeros(0.001, 0.002, 0.004, 0.02) for seed in range(3)}
    depth, swish = margins(tablea1, results)
    np.testing.assert_allclose(depth, [40] * 3)
    np.testing.assert_allclose(swish, [-1] * 3)
    assert verdict(tablea1.CLAIMS[1], results).outcome == "not reproduced"
    assert tablea1.CLAIMS[1].paper == pytest.approx(0.61)
