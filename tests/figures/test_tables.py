"""The tables of ToST and of the pipeline, and the pipeline's figures, from given measurements."""

from typing import Any

import numpy as np
import pytest

from figures import accuracy, effect_sizes
from figures.effect_sizes import gain_over_best
from figures.pipeline import accuracies, fig01, fig02
from figures.pipeline import table1 as pipeline1
from figures.pipeline import table2 as pipeline2
from figures.pipeline.runs import MANY_STEPS, NO_SIZE, TRAINING_FREE, run
from figures.registry import measurements
from figures.scales import SCALES
from figures.tost import table1, table2, table3, table5
from sparsediag.core.estimate import Estimate
from sparsediag.diagnostics.activations import Activations
from sparsediag.plotting.tables import Table
from tests.figures.judging import verdict
from training.masks.synflow import Synflow

LAPTOP, PAPER = SCALES["laptop"], SCALES["paper"]
ACCURACIES = (table2, table3, table5, pipeline1, pipeline2, fig01, fig02)
ITEMS = (table1, *ACCURACIES)
FIRST = table2.FIRST


def history(percent: float) -> list[dict[str, Any]]:
    return [
        {"epoch": 0, "test_accuracy": 0.0},
        {"epoch": 1, "test_accuracy": percent / 100, "best": True},
    ]


def as_printed(item: Any) -> dict[Any, Any]:
    """Three seeds, a point apart, around the paper's own numbers; baselines where it has none."""
    results = {}
    for kind, density, seed in item.MEASUREMENTS:
        if seed > 2:
            continue
        if item is table2:
            *block, mask, how = kind
            if mask == "dense":
                mean = table2.DENSE[tuple(block)]
            else:
                paper = table2.PAPER[tuple(block)].get(mask, ((40.0,) * 3,))
                mean = paper[how == "ToST"][table2.DENSITIES.index(density)]
        elif item is table3:
            mean = table3.PAPER[kind][table3.DENSITIES.index(density)]
        elif item is table5:
            mean = 70 + table5.PAPER.get(kind, (0,) * 4)[table5.DENSITIES.index(density)]
        else:
            table = pipeline1 if item in (pipeline1, fig01) else pipeline2
            at = table.DENSITIES.index(density)
            row = {"SNIP": accuracies.BEST, NO_SIZE: "+ ZerO"}.get(kind, kind)
            mean = table.PAPER.get(row, (9.0,) * 5)[at] + (kind == NO_SIZE)
        results[kind, density, seed] = history(mean + seed - 1)
    return results


def activations(shift: float) -> Activations:
    small = np.array([0.9, 0.1, 0.9, 0.2, 0.9, 0.3, 0.9, 0.4]) + shift
    return Activations(
        names=[f"b{i}" for i in range(8)], zeros=small / 2, small=small, dead=small,
        stage_last=[False, True] * 4, threshold=0.01, source={}, faint=small, rms=small,
        units=np.full(8, 4), relative=0.01, classes=[], class_zeros=np.zeros((0, 8)),
        class_dead=np.zeros((0, 8)),
    )  # fmt: skip


def drawn(item: Any, results: dict[Any, Any]) -> Any:
    return (item.table if hasattr(item, "table") else item.draw)(results, LAPTOP)


def rows(table: Table) -> dict[str, tuple[Any, ...]]:
    return {str(row[0]): row[1:] for row in table.rows}


def pairs(row: tuple[Any, ...]) -> list[tuple[Any, float | None]]:
    """The paper's number and the mean of ours."""
    here = [None if c is None else round(c.mean, 9) for c in row[1::2]]
    return list(zip(row[::2], here, strict=True))


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.__name__)
def test_an_item_copes_with_whatever_is_there(item: Any) -> None:
    whole = (
        {key: activations(0.1) for key in item.MEASUREMENTS if key[-1] < 3}
        if item is table1
        else as_printed(item)
    )
    some = list(whole.items())
    for kept in (some[:1], some[-1:], some[::7], some[1::2]):
        drawn(item, dict(kept))
        for claim in item.CLAIMS:
            verdict(claim, dict(kept))
    for scale in SCALES.values():
        there = {k: whole[k] for k in measurements(name(item), scale) if k in whole}
        if there:
            drawn(item, there)
        for claim in item.CLAIMS:
            verdict(claim, there)


def name(item: Any) -> str:
    return item.__name__.removeprefix("figures.").replace(".", "/")


@pytest.mark.parametrize("item", ACCURACIES, ids=lambda item: item.__name__)
def test_the_papers_own_numbers_give_its_margins(item: Any) -> None:
    results = as_printed(item)
    for claim in item.CLAIMS:
        effects = list(claim.effects(results).values())
        assert effects
        if claim.paper is not None:
            assert np.mean(effects) == pytest.approx(claim.paper, abs=1e-6)
        assert verdict(claim, results).outcome == "reproduced"


@pytest.mark.parametrize("item", ACCURACIES, ids=lambda item: item.__name__)
def test_no_claim_holds_where_all_nets_are_alike(item: Any) -> None:
    results = {key: history(50.0 + key[-1]) for key in item.MEASUREMENTS}
    for claim in item.CLAIMS:
        assert set(claim.effects(results).values()) == {0.0}
        assert verdict(claim, results).outcome == "not reproduced"


@pytest.mark.parametrize("item", ACCURACIES, ids=lambda item: item.__name__)
def test_the_opposite_is_no_reproduction(item: Any) -> None:
    turned = {
        key: history(100 - 100 * rows[-1]["test_accuracy"])
        for key, rows in as_printed(item).items()
    }
    for claim in item.CLAIMS:
        assert max(claim.margin(turned).values()) < 0, claim.says
    if item is pipeline1:
        better = {key: history(60.0 + (key[0] == "+ ZerO, Mask")) for key in item.MEASUREMENTS}
        assert set(item.CLAIMS[2].margin(better).values()) == {-1}


def test_table_1_takes_the_last_blocks_of_each_seed() -> None:
    results = {(label, s): activations(0.01 * s) for label, s in table1.MEASUREMENTS if s < 3}
    found = rows(table1.table(results, LAPTOP))
    assert pairs(found["ReLU"]) == list(zip(table1.PAPER["ReLU"], (11, 21, 31, 41), strict=True))
    assert pairs(found["Mish, exactly 0"]) == [(None, v) for v in (5.5, 10.5, 15.5, 20.5)]
    assert found["ReLU"][1].half == pytest.approx(Estimate.of([10, 11, 12]).half)


def test_table_1_compares_relu_with_the_others() -> None:
    shift = {"ReLU": 0.3, "Swish": 0.0, "Mish": 0.1}
    results = {
        (label, seed): activations(shift[label] + 0.01 * seed * (label == "ReLU"))
        for label, seed in table1.MEASUREMENTS
    }
    (more,) = table1.CLAIMS
    expected = {seed: 25 + seed for seed in range(6)}
    assert more.margin(results) == pytest.approx(expected)
    assert more.paper == pytest.approx(40.97 - (0.2525 + 1.0525) / 2)
    assert more.margin({("ReLU", 0): activations(0)}) == {}


def test_table_2_has_a_block_a_net_and_data_set_headed_by_the_dense_net() -> None:
    found = table2.table(as_printed(table2), PAPER)
    assert found.headers[:5] == ("mask", "dense, paper", "dense, here", "90 %, paper", "90 %, here")
    assert len(found.rows) == 4 * 11 + 2
    assert [row[0] for row in found.rows[:3]] == ["ResNet-32, CIFAR-100", "Random", "Random + ToST"]
    assert pairs(found.rows[0][1:3]) == [(74.64, 74.64)]
    assert pairs(found.rows[2][3:]) == [(65.19, 65.19), (64.61, 64.61), (33.98, 33.98)]
    assert found.rows[9][:-1] == (table2.ONE_STEP, *[None] * 7)
    assert found.rows[9][-1].mean == pytest.approx(40)


def test_table_2_leaves_out_what_a_smaller_scale_does_not_train() -> None:
    wanted = measurements("tost/table2", LAPTOP)
    assert {kind[:2] for kind, _, _ in wanted} == {FIRST}
    found = table2.table({label: history(50) for label in wanted}, LAPTOP)
    assert [row[0] for row in found.rows].count("SNIP") == 1
    few = {key: history(50) for key in wanted if key[1] in (1, 0.05)}
    assert table2.table(few, LAPTOP).headers[-1] == "95 %, here"
    assert table2.ONE_STEP not in rows(table2.table(few, LAPTOP))


def test_the_single_step_is_the_only_difference_of_its_row() -> None:
    one = table2.MEASUREMENTS[((*FIRST, table2.ONE_STEP, "base"), 0.02, 1)].run
    many = table2.MEASUREMENTS[((*FIRST, "SynFlow", "base"), 0.02, 1)].run
    assert one.mask == Synflow(0.02, steps=1)
    assert many.mask == Synflow(0.02, steps=100)
    assert (one.on_disconnected, one.model, one.seed) == ("warn", many.model, many.seed)
    assert {
        (kind[0], kind[3], d) for kind, d, _ in table2.MEASUREMENTS if kind[2] == table2.ONE_STEP
    } == {("resnet32", "base", 0.02)}


def test_table_3_has_the_papers_columns() -> None:
    found = table3.table(as_printed(table3), PAPER)
    assert found.headers[1::2] == ("85 %, paper", "90 %, paper", "95 %, paper")
    assert pairs(rows(found)["LTH + ToST"]) == [(v, v) for v in (61.52, 58.96, 54.76)]


def test_table_5_tells_changes() -> None:
    found = table5.table(as_printed(table5), PAPER)
    assert pairs(rows(found)["GSk"]) == [(v, v) for v in (-0.77, 0.03, 0.56, 2.15)]
    assert "| GSk | -0.77 | -0.77 ± 0.00 | 0.03 |" in found.markdown()


def test_training_free_is_the_best_by_its_mean() -> None:
    results = {("SNIP", 0.1, seed): history(60 + seed) for seed in range(3)}
    results |= {("Random", 0.1, seed): history(value) for seed, value in enumerate((90, 10, 10))}
    results |= {(MANY_STEPS, 0.1, 0): history(99)}
    found = accuracies.estimate(results, accuracies.BEST, 0.1)
    assert found == accuracy.estimate(results, "SNIP", 0.1)
    assert gain_over_best("SNIP", ["Random"], 0.1)(results) == {0: -30, 1: 51, 2: 52}


def test_a_lead_is_over_the_best_of_the_others_on_average() -> None:
    values = {"a": (50, 60), "b": (40, 70), "c": (45, 10)}
    results = {(k, d, s): history(v) for k, row in values.items() for s, v in enumerate(row)
               for d in (0.1, 0.01)}  # fmt: skip
    assert gain_over_best("a", "bc", 0.1)(results) == pytest.approx({0: 10, 1: -10})
    assert gain_over_best("a", "c", 0.1, 0.01, 0.5)(results) == pytest.approx({0: 5, 1: 50})
    assert gain_over_best("a", "bx", 0.1)(results) == gain_over_best("a", "x", 0.1)(results) == {}
    assert effect_sizes.max_gain_over_best("a", "bc", 0.1)(results) == pytest.approx(45)
    del results["b", 0.1, 0]
    assert gain_over_best("a", "bc", 0.1)(results) == pytest.approx({1: -10})
    both = effect_sizes.weakest(gain_over_best("a", "b", 0.1), gain_over_best("a", "c", 0.1))
    assert both(results) == pytest.approx({1: -10})
    assert effect_sizes.weakest(both, gain_over_best("a", "x", 0.1))(results) == {}


def test_nets_that_learn_nothing_test_no_claim_of_the_pipeline() -> None:
    for item in (pipeline1, pipeline2, fig01, fig02):
        dead = {
            key: history(9.0 + 0.1 * key[-1] * key[0].startswith("+"))
            for key in item.MEASUREMENTS
            if key[-1] < 3
        }
        for claim in item.CLAIMS:
            if claim.max_gain:
                assert verdict(claim, dead).outcome == "undecided", claim.says
    dead |= {("RigL", 0.01, seed): history(60.0) for seed in range(3)}
    assert effect_sizes.max_gain_over_best(["+ Mask"], ["RigL"], 0.01)(dead) == pytest.approx(40)


def test_a_pipeline_table_gives_densities_as_compressions_too() -> None:
    found = pipeline1.table(as_printed(pipeline1), PAPER)
    assert found.headers[1::2] == ("10 %, paper", "3.2 %, paper", "1 %, paper", "0.32 %, paper")
    assert found.rows[0][1::2] == ("1", "1.5", "2", "2.5")
    assert [row[0] for row in found.rows[1:7]] == list(pipeline1.PAPER)
    assert pairs(rows(found)["+ ZerO, Mask"]) == [(v, v) for v in (97.2, 87.8, 89.0, 65.0)]
    assert pairs(rows(found)[accuracies.BEST]) == [(v, v) for v in (97.3, 93.2, 57.0, 11.4)]
    assert pairs(rows(found)[NO_SIZE]) == [(None, v) for v in (98.2, None, 67.2, None)]


def test_the_pipeline_at_the_papers_scale_is_its_trainings_and_eight_more() -> None:
    from figures.cost import trainings

    found = [trainings(f"pipeline/{name}", PAPER) for name in ("table1", "table2")]
    assert list(map(len, found)) == [40 + 5, 64 + 3]
    for fig, tab in ((fig01, pipeline1), (fig02, pipeline2)):
        assert fig.MEASUREMENTS is tab.MEASUREMENTS


def test_the_runs_of_the_pipeline_are_the_papers() -> None:
    whole = run("+ All", 0.01, net="vgg16")
    assert (whole.init, whole.rewind, whole.mask.density) == ("zero_hadamard", 1.0, 0.01)
    assert set(whole.tweaks) == {"smoothing", "ghost_neurons", "ghost_skips"}
    assert run("+ ToST", 0.1, net="vgg16").before()[0].tweaks == {}
    plain = run("SNIP", 0.1, net="vgg16")
    assert (plain.init, plain.rewind, plain.tweaks, plain.before()) == ("default", 0, {}, ())
    free, pressed = run(NO_SIZE, 0.1), run("+ ZerO, Mask", 0.1)
    assert (free.mask.lambda_l1, pressed.mask.lambda_l1) == (0.0, 1e-5)
    assert free.mask.lambda_binary == pressed.mask.lambda_binary
    assert {run(kind, 0.1).on_disconnected for kind in TRAINING_FREE} == {"warn"}


@pytest.mark.parametrize(("fig", "table"), [(fig01, pipeline1), (fig02, pipeline2)])
def test_a_pipeline_figure_draws_the_paper_beside_ours(fig: Any, table: Any) -> None:
    theirs, ours = fig.draw(as_printed(fig), LAPTOP).axes
    lines = [{bar.get_label(): bar.lines[0] for bar in ax.containers} for ax in (theirs, ours)]
    assert list(lines[0]) == list(table.PAPER)
    for row, numbers in table.PAPER.items():
        for found in lines:
            np.testing.assert_allclose(found[row].get_ydata(), numbers)
            np.testing.assert_allclose(np.array(found[row].get_xdata(), float), table.DENSITIES)
            dashed = row in (accuracies.BEST, "vanilla", "RigL")
            assert (found[row].get_linestyle() == "--") == dashed
    assert MANY_STEPS in lines[1]
    assert theirs.get_title() == "the paper"
    assert ours.get_title().startswith("here: ")
    assert [t.get_text() for t in ours.get_xticklabels()][:2] == ["10\n1", "3.2\n1.5"]
    assert ours.get_xlim()[0] > ours.get_xlim()[1]
