"""The forerunner's figures of accuracy over sparsity: what they draw, and what their claims say."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from figures import effect_sizes, registry
from figures.claims import Claim
from figures.lottery import fig01, fig04, fig06, fig07, fig08, fig09, figa13, panels
from figures.lottery.runs import LEVELS
from figures.scales import SCALES
from sparsediag.plotting import style
from tests.figures.judging import outcomes, verdict

MODULES = (fig01, fig04, fig06, fig07, fig08, fig09, figa13)
LAPTOP = SCALES["laptop"]
LOW, HIGH = LEVELS[11], LEVELS[16]


def history(percent: float) -> list[dict[str, Any]]:
    return [
        {"test_accuracy": 0.0},
        {"test_accuracy": percent / 100, "best": True},
        {"test_accuracy": 1.0},
    ]


def measured(
    module: ModuleType, level: Callable[[Any, float], float], *, seeds: int = 3
) -> dict[Any, Any]:
    """All results of an item; seeds differ by a tenth of a point, alike for all kinds."""
    return {
        (kind, density, seed): history(level(kind, density) + 0.1 * seed)
        for kind, density, seed in module.MEASUREMENTS
        if seed < seeds
    }


def at_laptop(module: ModuleType, level: Callable[[Any, float], float]) -> dict[Any, Any]:
    there = registry.measurements(f"lottery/{module.__name__.rpartition('.')[2]}", LAPTOP)
    return {label: rows for label, rows in measured(module, level).items() if label in there}


def steps(kind: Any, density: float) -> float:
    """Different for every kind, and falling with sparsity."""
    return 70 + 0.1 * len(str(kind)) + float(np.log(density))


def all_margins(module: ModuleType, level: Callable[[Any, float], float]) -> dict[str, list[float]]:
    results = measured(module, level)
    return {claim.says: list(claim.margin(results).values()) for claim in claims_of(module)}


def claims_of(module: ModuleType) -> tuple[Claim, ...]:
    return registry.claims(f"lottery/{module.__name__.rpartition('.')[2]}")


def lines(ax: Axes) -> dict[str, Any]:
    return {str(bars.get_label()): bars[0] for bars in ax.containers}


def dashed(ax: Axes) -> list[float]:
    return [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"]


def legend(fig: Figure) -> list[str]:
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_fig01_draws_a_panel_a_group_of_tweaks() -> None:
    fig = fig01.draw(measured(fig01, steps), LAPTOP)
    assert [ax.get_title()[:2] for ax in fig.axes] == ["a)", "b)", "c)", "d)"]
    assert [set(lines(ax)) for ax in fig.axes] == [
        {"vanilla", "skip"}, {"vanilla", "Swish", "Mish"}, {"vanilla", "LS"}, {"vanilla", "LRsI"}
    ]  # fmt: skip
    skip = lines(fig.axes[0])["skip"].get_ydata()
    assert skip == pytest.approx([steps("skip", d) + 0.1 for d in sorted(LEVELS.values())])
    assert dashed(fig.axes[0]) == pytest.approx([steps("vanilla", 1) + 0.1, steps("skip", 1) + 0.1])
    assert legend(fig)[-2:] == ["dense", "winning tickets"]


def test_fig01_shades_where_tickets_win() -> None:
    results = measured(fig01, lambda kind, d: 70 if d == 1 else 70 - (kind == "LS" and d < 0.5))
    drawn = fig01.draw(results, LAPTOP).axes
    assert len(drawn[0].patches) == 16
    assert len(drawn[1].patches) == 32
    spans = [patch.get_x() for patch in drawn[2].patches]
    assert len(spans) == sum(d >= 0.5 for d in LEVELS.values()) == 3
    assert min(spans) == pytest.approx(LEVELS[3] * 0.8**0.5)


def test_a_ticket_wins_from_one_standard_deviation_below_the_dense_net() -> None:
    dense = {("vanilla", 1, seed): history(value) for seed, value in enumerate((69, 70, 71))}
    assert panels.winning_accuracy(dense) == pytest.approx(69)
    assert panels.winning_accuracy({("vanilla", 1, 0): history(70)}) == pytest.approx(70)
    assert np.isnan(panels.winning_accuracy({}))


def test_margins_are_joined_seed_by_seed() -> None:
    def of(kind: str) -> effect_sizes.Margin:
        return lambda results: {s: rows for (k, _, s), rows in results.items() if k == kind}

    results = {("a", 1, 0): 5.0, ("a", 1, 1): 7.0, ("b", 1, 1): 1.0, ("b", 1, 2): 3.0}
    assert effect_sizes.difference(of("a"), of("b"))(results) == {1: 6.0}
    assert effect_sizes.mean(of("a"), of("b"))(results) == {1: 4.0}
    assert effect_sizes.mean(of("a"), of("b"))({}) == effect_sizes.mean()({}) == {}


def test_fig04_draws_both_panels() -> None:
    fig = fig04.draw(measured(fig04, steps), LAPTOP)
    left, right = fig.axes
    assert list(lines(left)) == ["vanilla", "AT", "TRT", "AT+TRT"]
    assert list(lines(right)) == ["AT+TRT", "vanilla, rewound"]
    assert len(dashed(left)) == 4
    assert dashed(right) == pytest.approx([steps("vanilla", 1) + 0.1])
    assert lines(right)["vanilla, rewound"].get_linestyle() == ":"
    assert len({line.get_marker() for line in lines(left).values()}) == 4


def test_fig06_draws_the_nets_and_data_sets_that_are_there() -> None:
    whole = fig06.draw(measured(fig06, steps), SCALES["paper"])
    assert [ax.get_title() for ax in whole.axes][::5] == [
        "VGG-16-BN, CIFAR-10",
        "ResNet-18, CIFAR-100",
    ]
    assert len(whole.axes) == 8
    small = fig06.draw(at_laptop(fig06, steps), LAPTOP)
    assert [ax.get_title().split()[0] for ax in small.axes] == [
        "VGG-16-BN",
        "ResNet-18",
        "MobileNet",
    ]
    assert all(len(dashed(ax)) == 1 for ax in small.axes)


def test_fig08_draws_a_panel_a_tweak() -> None:
    fig = fig08.draw(measured(fig08, steps), LAPTOP)
    for ax, tweak in zip(fig.axes, ("AT", "TRT", "AT+TRT"), strict=True):
        plain = ["vanilla", "vanilla, rewound"]
        assert list(lines(ax)) == [*plain, tweak, f"{tweak}, rewound"]
        colours = {to_hex(lines(ax)[kind].get_color()) for kind in (tweak, f"{tweak}, rewound")}
        assert len(colours) == 1
        assert len(ax.get_xticks()) <= 11


@pytest.mark.parametrize(
    ("module", "kinds"),
    [
        (fig07, ["vanilla", "AT+TRT"]),
        (fig09, ["vanilla", "AT+TRT", "AT+TRT with KD"]),
        (figa13, ["vanilla", "AT+TRT"]),
    ],
)
def test_one_panel_shows_all_kinds_and_the_dense_net(module: ModuleType, kinds: list[str]) -> None:
    fig = module.draw(measured(module, steps), LAPTOP)
    (ax,) = fig.axes
    assert list(lines(ax)) == kinds
    assert dashed(ax) == pytest.approx([steps("vanilla", 1) + 0.1])
    assert legend(fig) == [*kinds, "dense"]
    assert ax.get_xlabel() == "sparsity (%)"
    assert ax.get_ylabel() == "test accuracy (%)"


@pytest.mark.parametrize("module", MODULES)
def test_margins_are_zero_where_all_nets_are_equal(module: ModuleType) -> None:
    for says, values in all_margins(module, lambda _, density: 70.0).items():
        assert values == pytest.approx([0] * 3, abs=1e-9), says


def test_fig01_claims_hold_and_fail() -> None:
    def paper(kind: str, density: float) -> float:
        return 70 - (kind == "skip" and density == 1) + (kind != "vanilla" and density < 1)

    assert all(min(values) > 0.9 for values in all_margins(fig01, paper).values())

    def contrary(kind: str, density: float) -> float:
        return 140 - paper(kind, density)

    assert all(max(values) < -0.9 for values in all_margins(fig01, contrary).values())


def test_fig04_claims_hold_and_fail() -> None:
    levels = {
        "vanilla": (70, 70, 66),
        "AT": (70, 70, 69),
        "TRT": (70, 71, 68),
        "AT+TRT": (71, 72, 71),
        "vanilla, rewound": (70, 71, 71.5),
    }

    def at(kind: str, density: float) -> float:
        return levels[kind][(density < 1) + (density < 0.15)]

    assert outcomes(fig04.CLAIMS, measured(fig04, at)) == ["reproduced"] * 2
    levels = {"vanilla": (70, 70, 71), "AT+TRT": (71, 69, 68), "vanilla, rewound": (70, 71, 71.5)}
    levels |= dict.fromkeys(("AT", "TRT"), (70, 70, 70))
    assert outcomes(fig04.CLAIMS, measured(fig04, at)) == ["not reproduced"] * 2


@pytest.mark.parametrize("module", [fig06, figa13])
def test_claims_of_all_tweaks_together_hold_and_fail(module: ModuleType) -> None:
    for sign, word in ((1, "reproduced"), (-1, "not reproduced")):

        def at(kind: Any, density: float, sign: int = sign) -> float:
            return 70 + sign * ("AT+TRT" in kind)

        assert outcomes(module.CLAIMS, measured(module, at)) == [word]


def test_fig06_takes_the_mean_over_nets_and_data_sets() -> None:
    results = measured(
        fig06, lambda kind, _: 70 + (kind[2] == "AT+TRT") * (-1 if kind[0] == "mobilenet" else 2)
    )
    assert fig06.CLAIMS[0].margin(results) == pytest.approx(dict.fromkeys(range(3), 1.25))


def test_fig08_claims_hold_and_fail() -> None:
    def paper(kind: str, density: float) -> float:
        if kind == "AT+TRT, rewound":
            return 72
        added = {"AT, rewound": 1.1, "TRT, rewound": 2.0, "vanilla, rewound": 1, "AT+TRT": 2}
        return 70 - (density < 1) * (2 - added.get(kind, 0)) - (density < 0.1)

    def contrary(kind: str, density: float) -> float:
        return 140 - paper(kind, density)

    assert outcomes(fig08.CLAIMS, measured(fig08, paper)) == ["reproduced"] * 2
    assert outcomes(fig08.CLAIMS, measured(fig08, contrary)) == ["not reproduced"] * 2


def test_fig09_claims_hold_and_fail() -> None:
    def paper(kind: str, density: float) -> float:
        return 70 + {"vanilla": 0, "AT+TRT": 2, "AT+TRT with KD": 2.6}[kind]

    def contrary(kind: str, density: float) -> float:
        return 70 + {"vanilla": 0, "AT+TRT": 1, "AT+TRT with KD": -2}[kind]

    assert outcomes(fig09.CLAIMS, measured(fig09, paper)) == ["reproduced"]
    assert outcomes(fig09.CLAIMS, measured(fig09, contrary)) == ["not reproduced"]


@pytest.mark.parametrize("module", MODULES)
def test_they_cope_with_parts_of_the_results(module: ModuleType) -> None:
    whole = measured(module, steps)
    parts = [
        at_laptop(module, steps),
        {label: rows for label, rows in whole.items() if label[1:] == (HIGH, 0)},
        {label: rows for label, rows in whole.items() if label[1:] == (1, 0)},
        {label: rows for label, rows in whole.items() if "vanilla" not in label[0]},
        dict([next(iter(reversed(whole.items())))]),
    ]
    for part in parts:
        assert part
        with style.style():
            assert module.draw(part, LAPTOP).axes
        for claim in claims_of(module):
            assert verdict(claim, part).why
            if claim.max_gain:
                assert claim.max_gain(part) >= 0


@pytest.mark.parametrize(
    ("module", "count"),
    [(fig01, 102), (fig04, 84), (fig06, 264), (fig07, 33), (fig08, 129), (fig09, 49), (figa13, 33)],
)
def test_at_the_papers_own_scale_one_seed_is_trained(module: ModuleType, count: int) -> None:
    needed = registry.measurements(f"lottery/{module.__name__.rpartition('.')[2]}", SCALES["paper"])
    assert len(needed) == count
    assert {need.run.seed for need in needed.values()} == {0}
