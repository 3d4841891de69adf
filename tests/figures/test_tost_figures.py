"""What ToST's figures draw from given measurements, and what they say of its claims."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from figures.histories import eigenvalue
from figures.loss_surfaces import mean_rise
from figures.scales import SCALES
from figures.tost import (
    fig01,
    fig02,
    fig03,
    fig04,
    fig05,
    fig06,
    fig08,
    fig09a,
    fig09b,
    fig10,
    trajectories,
)
from sparsediag import models
from tests.figures.judging import outcomes
from training.masks import METHODS
from training.tweaks.ghosts import GhostNeurons, GhostSkips
from training.tweaks.smoothing import Smoothing

LAPTOP = SCALES["laptop"]
JUDGED = (fig06, fig08, fig09a, fig09b, fig10)
MEASURED = (fig02, *JUDGED)


@dataclass
class Curve:
    """Stands for a perturbation: `centre + steep t^2`."""

    steep: float
    centre: float = 2.0
    distance: np.ndarray = field(default_factory=lambda: np.linspace(-1, 1, 5))

    @property
    def loss(self) -> np.ndarray:
        return np.array([self.centre + self.steep * self.distance**2])


@dataclass
class Top:
    """Stands for a spectrum."""

    value: float

    @property
    def eigenvalues(self) -> np.ndarray:
        return np.array([self.value])


@dataclass
class Plane:
    """Stands for an inputscape: of two images, on a plane that lies `height` above them."""

    height: float
    kind: str = "gradient"
    centre: np.ndarray = field(default_factory=lambda: np.array([1.0, 9.0]))
    clamp: float = 8.0
    axes: np.ndarray = field(default_factory=lambda: np.tile(np.linspace(-1, 1, 3), (2, 1)))

    @property
    def labels(self) -> list[str]:
        return [self.kind, "other"]

    @property
    def loss(self) -> np.ndarray:
        return np.stack([np.full((3, 3), 1 + self.height), np.full((3, 3), 8.0)])

    @property
    def mean(self) -> np.ndarray:
        return self.loss.mean(axis=0)


def history(values: list[float], accuracy: float = 0.5, **more: Any) -> list[dict[str, Any]]:
    """Epochs of which all but the last are before the first drop; the last is the best."""
    rows = [
        {"epoch": i, "lr": 0.1 if i < len(values) - 1 else 0.01, "eigenvalue": v,
         "gradient_flow": v, "weight_norm": 2.0, "ghost_weights": 0, **more}
        for i, v in enumerate(values)
    ]  # fmt: skip
    rows[-1] |= {"best": True, "test_accuracy": accuracy}
    return rows


def results(module: Any) -> dict[Any, Any]:
    """Something for every need of an item at the scale of a laptop."""
    made: dict[str, Any] = {
        "history": lambda label: history([1.0, 3.0, 2.0 + label[-1], 1.0]),
        "perturbation": lambda label: Curve(1.0 + label[-1]),
        "spectrum": lambda label: Top(1.0 + label[-1]),
        "inputscape": lambda label: Plane(1.0 + label[-1], label[0]),
    }
    taken = {
        label: need
        for label, need in module.MEASUREMENTS.items()
        if label[-1] < 3 and LAPTOP.includes(replace(need.run, seed=0))
    }
    return {label: made[need.diagnostic](label) for label, need in taken.items()}


def lines(ax: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in ax.get_lines()}


def judged(module: Any, found: Any) -> list[str]:
    return outcomes(module.CLAIMS, found)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    assert not plt.get_fignums()  # no figure is left to pyplot


def partial(found: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
    """One measurement; one seed; one kind; all but one kind."""
    for label in found:
        yield {label: found[label]}
    yield {label: value for label, value in found.items() if label[-1] == 1}
    for place in (0, 1):
        for key in {label[place] for label in found}:
            yield {label: v for label, v in found.items() if label[place] == key}
            yield {label: v for label, v in found.items() if label[place] != key}


@pytest.mark.parametrize("module", MEASURED, ids=lambda m: m.__name__[-6:])
def test_partial_results_are_drawn_and_judged(module: Any) -> None:
    found = results(module)
    kept = list({tuple(part): part for part in partial(found) if part}.values())
    for part in kept:
        if module in JUDGED:
            judged(module, part)
    for part in [found, *kept[:: 1 + len(kept) // 8], kept[-1]]:
        assert module.draw(part, LAPTOP).axes


def test_nothing_trained_is_not_run() -> None:
    for module in JUDGED:
        assert set(judged(module, {})) == {"not run"}


def test_figure_1_shows_the_schedules_of_the_tweaks() -> None:
    courses = {kind: fig01.schedule(tweak)[1] for kind, tweak in fig01.LANES.items()}
    assert courses["GSk"] == [GhostSkips().gate(e, 180) for e in range(180)]
    assert courses["GSw"] == [1 / GhostNeurons().beta(e, 180) for e in range(180)]
    assert courses["GSw"][89] > 0 == courses["GSw"][90]
    assert courses["LS"] == [Smoothing().alpha] * 180
    assert courses["LRsI"] == []
    assert all(name in fig01.boxes()["any mask"] for name in METHODS if name != "dense")
    assert "after 90 epochs" in fig01.boxes()["plain sparse network"]
    lanes = fig01.draw({}, LAPTOP).axes[1:]
    heads = [ax.get_ylabel().split("\n")[0] for ax in lanes]
    assert heads == ["GSk", "GSw", "LRsI", "LS", "learning"]
    drawn = lanes[0].patches[0].get_data().values
    np.testing.assert_array_equal(drawn, courses["GSk"])
    assert list(lanes[-1].get_xticks()) == [0, 90, 135, 180]


def test_figure_2_shows_every_seed_and_their_geometric_mean() -> None:
    found = {("base", 0.1, s): history([1.0 + s, 4.0, 2.0, 1.0]) for s in range(3)}
    (ax,) = fig02.draw(found, LAPTOP).axes
    thin = [line.get_ydata()[0] for line in ax.get_lines() if line.get_linewidth() == 0.5]
    assert thin == pytest.approx([1, 2, 3])
    assert lines(ax)["plain sparse"][0] == pytest.approx(6 ** (1 / 3))
    assert [line.get_xdata()[0] for line in ax.get_lines() if line.get_linestyle() == ":"] == [3.5]


def test_figure_2_tells_the_factor_between_epochs() -> None:
    found = {("base", 0.1, 0): history([1.0, 2.0, 1.0, 2.0, 50.0])}
    (ax,) = fig02.draw(found, LAPTOP).axes
    assert "2.00 x" in ax.get_title()


def test_figure_3_draws_the_activation_code() -> None:
    left, right = fig03.draw({}, LAPTOP).axes
    x = left.get_lines()[0].get_xdata()
    np.testing.assert_array_equal(lines(left)["ReLU"], np.maximum(x, 0))
    np.testing.assert_allclose(lines(left)["Swish"], x / (1 + np.exp(-x)))
    assert lines(right)["Swish"][len(x) // 2] == pytest.approx(0.5)
    assert judged(fig03, {}) == ["reproduced"]


def test_figure_4_is_wired_as_the_block() -> None:
    found = fig04.steps()
    assert list(found) == [
        "x", "conv1", "bn1", "ghost1", "act1", "conv2", "bn2", "ghost2", "shortcut", "add", "act2",
        "output",
    ]  # fmt: skip
    assert found["ghost1"].inputs == ("bn1", "x")
    assert found["ghost2"].inputs == ("bn2", "act1")
    assert found["add"].inputs == ("ghost2", "shortcut")
    assert found["output"].inputs == ("act2",)  # the other site has no ghost
    kinds = {type(step.layer) for step in found.values()}
    assert {models.GhostReLU, models.GhostSkip} <= kinds


def test_figure_4_draws_every_step_and_both_ghosts() -> None:
    (ax,) = fig04.draw({}, LAPTOP).axes
    words = [text.get_text() for text in ax.texts]
    assert words.count("3 x 3\nconv") == words.count("Swish\n→ ReLU") == 2
    assert words.count("+") == 3
    assert sum("ghost skip (average)" in word for word in words) == 2
    assert words.count("the block's own shortcut") == 1


def test_figure_5_goes_from_half_of_x_to_relu() -> None:
    (ax,) = fig05.draw({}, LAPTOP).axes
    curves = list(lines(ax).values())
    x = ax.get_lines()[0].get_xdata()
    np.testing.assert_allclose(curves[0], x / 2)
    np.testing.assert_allclose(curves[1], x / (1 + np.exp(-x)))
    np.testing.assert_array_equal(curves[-1], np.maximum(x, 0))
    gaps = [np.abs(curve - curves[-1]).max() for curve in curves]
    assert gaps == sorted(gaps, reverse=True)
    assert judged(fig05, {}) == ["reproduced", "not reproduced"]


def test_figure_5_has_the_betas_of_the_training() -> None:
    passed = [GhostNeurons().beta(epoch, 180) for epoch in range(180)]
    assert (min(passed), passed[89], max(passed)) == (*fig05.BETAS[1:2], *fig05.BETAS[-2:])


def accuracies(**percent: float) -> dict[Any, Any]:
    """Histories at 90 and 95 %, by kinds with _ for ', '; the seeds differ a little."""
    kinds = {kind.replace("_", ", ").replace("0", " "): value for kind, value in percent.items()}
    return {
        (kind, density, seed): history([1.0, 1.0], (value + 0.01 * seed) / 100)
        for kind, value in kinds.items()
        for density in (0.1, 0.05)
        for seed in range(3)
    }


def test_figure_6_has_three_panels_and_what_goes_late() -> None:
    found = accuracies(base=70, GSk=72, GSk_permanent=73, GSk_after0decay=71, GSk_released=72)
    for rows in (found["GSk, released", 0.1, s] for s in range(3)):
        rows[0]["ghost_weights"] = 1234
    skips, neurons, late, released = fig06.draw(found, LAPTOP).axes

    def level(ax: Axes) -> dict[str, float]:
        return {str(c.get_label()): float(c[0].get_ydata()[0]) for c in ax.containers}

    first = {"without": 70.01, "fades before the first drop": 72.01}
    assert level(skips) == pytest.approx(first | {"permanent": 73.01})
    assert level(released) == pytest.approx(first | {"fades, learned as released": 72.01})
    assert level(neurons) == pytest.approx({"without": 70.01})
    assert [c[0].get_ydata()[0] for c in late.containers] == pytest.approx([-1])
    paper = [line.get_ydata()[0] for line in late.get_lines() if line.get_marker() == "D"]
    assert paper == list(fig06.PAPER.values())
    assert "1,234" in released.get_title()


def test_figure_6_judges_the_mean_of_both_tweaks() -> None:
    skips = {"GSk": 72, "GSk_permanent": 73, "GSk_after0decay": 71, "GSk_abrupt": 74}
    neurons = {name.replace("GSk", "GSw"): value for name, value in skips.items()}
    words = judged(fig06, accuracies(base=70, **skips, **neurons))
    assert words == ["reproduced", "reproduced", "not reproduced"]
    assert judged(fig06, accuracies(base=70, **skips)) == ["not run"] * 3


def test_figure_6_counts_the_weights_of_the_net_that_is_trained() -> None:
    net = models.build("resnet18", width=8)
    convolutions = sum(p.numel() for p in net.parameters() if p.dim() == 4)
    assert fig06.num_prunable_weights(LAPTOP) == convolutions


def test_figure_6_removes_swish_at_once() -> None:
    tweak = fig06.MEASUREMENTS["GSw, abrupt", 0.05, 0].run.tweaks["ghost_neurons"]
    assert isinstance(tweak, GhostNeurons)
    assert [tweak.beta(epoch, 180) for epoch in (0, 134, 135)] == [1, 1, np.inf]


def test_figure_8_starts_from_zero_and_has_both_views_of_the_curvature() -> None:
    found: dict[Any, Any] = {("curve", k, s): Curve(1.0) for k in fig08.KINDS for s in range(3)}
    found |= {("live", "base", s): Top(3.0) for s in range(3)}
    found |= {("dense", "ToST", s): Top(5.0) for s in range(3)}
    left, right = fig08.draw(found, LAPTOP).axes
    assert list(lines(left)) == ["plain sparse", *fig08.KINDS[1:]]
    for change in lines(left).values():
        np.testing.assert_allclose(change, np.linspace(-1, 1, 5) ** 2)
    points = [(round(float(x[0])), y[0]) for x, y in (p.get_data() for p in right.lines) if len(x)]
    assert points == [(0, 3.0)] * 3 + [(1, 5.0)] * 3


def test_figure_8_judges_the_mean_rise() -> None:
    steep = {"base": 2.0, "GSk": 1.0, "ToST": 3.0}
    found = {("curve", kind, s): Curve(a + 0.01 * s) for kind, a in steep.items() for s in range(3)}
    assert fig08.CLAIMS[0].margin(found) == pytest.approx(dict.fromkeys(range(3), -0.5))
    assert judged(fig08, found) == ["not reproduced"]
    curve = Curve(1.0, distance=np.array([-1e200, 0.0, 1.0]))  # overflows there
    with np.errstate(over="ignore"):
        assert fig08.CLAIMS[0].effects({("curve", k, 0): curve for k in ("base", "ToST")}) == {}


@pytest.mark.parametrize("figure", [fig09a, fig09b])
def test_figure_9_draws_the_geometric_mean_raw_and_scaled(figure: Any) -> None:
    found = {
        (kind, 0.1, seed): history([factor * 10**seed, 2.0, 3.0])
        for kind, factor in {"base": 1.0, "ToST": 4.0}.items()
        for seed in (0, 2)
    }
    raw, scaled = figure.draw(found, LAPTOP).axes
    np.testing.assert_allclose(lines(raw)["plain sparse"], [10, 2, 3])
    np.testing.assert_allclose(lines(raw)["ToST"], [40, 2, 3])
    power = 2 if figure is fig09a else 1
    np.testing.assert_allclose(lines(scaled)["ToST"], np.array([40, 2, 3]) * 2**power)


def test_figure_9_compares_seed_by_seed_over_the_epochs() -> None:
    found = {("base", 0.1, s): history([10.0, 1.0]) for s in range(3)}
    found |= {("ToST", 0.1, s): history([1.0, 0.1]) for s in range(3)}
    ratio = trajectories.log_ratio(eigenvalue, "base", "ToST")
    assert ratio(found) == pytest.approx(dict.fromkeys(range(3), 1))
    assert judged(fig09a, found)[:2] == ["reproduced"] * 2
    assert judged(fig09b, found) == ["not reproduced"]


def test_figure_9_is_not_fooled_by_the_length_of_the_weights() -> None:
    found = {("base", 0.1, s): history([1.0, 1.0]) for s in range(3)}
    found |= {("ToST", 0.1, s): history([0.5, 0.5], weight_norm=4.0) for s in range(3)}
    assert judged(fig09a, found)[:2] == ["reproduced", "not reproduced"]


def test_figure_9_leaves_out_eigenvalues_without_a_logarithm() -> None:
    found = {("base", 0.1, 0): history([-1.0, 10.0]), ("ToST", 0.1, 0): history([5.0, 1.0])}
    assert trajectories.log_ratio(eigenvalue, "base", "ToST")(found) == pytest.approx({0: 1})
    never = {label: history([-1.0, -1.0]) for label in found}
    assert trajectories.log_ratio(eigenvalue, "base", "ToST")(never) == {}


def test_figure_10_has_common_levels_and_the_mean_rise() -> None:
    found = results(fig10) | {("random", "LS", 0): Plane(4.0, "random")}
    axes = fig10.draw(found, LAPTOP).axes
    panels = [ax for ax in axes if ax.get_title()]
    assert len(panels) == 10
    for row in (panels[:5], panels[5:]):
        assert len({tuple(ax.collections[0].levels) for ax in row}) == 1
    assert panels[0].get_title() == "plain sparse\nrise 1.000 ± 1.242"
    assert panels[-1].get_title() == "LS\nrise 2.000"


def test_figure_10_counts_a_clamped_image_as_clamped() -> None:
    assert mean_rise(Plane(2.0)) == pytest.approx(1.0)  # the other image is at the clamp


def test_figure_10_judges_the_rise_along_the_gradient() -> None:
    heights = {"base": 2.0, "GSk": 1.0, "GSw": 0.0, "LRsI": 2.0, "LS": 3.0}
    found = {
        ("gradient", kind, seed): Plane(height + 0.01 * seed)
        for kind, height in heights.items()
        for seed in range(3)
    }
    assert fig10.CLAIMS[0].margin(found) == pytest.approx(dict.fromkeys(range(3), 0.25))
    assert judged(fig10, found) == ["reproduced"]
