"""Every item at smoke scale, and what each draws from given measurements."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from figures import __main__ as driver
from figures import store
from figures.lottery import fig05 as lottery5
from figures.need import TOST, Need
from figures.scales import SCALES
from figures.tost import fig02, fig03, fig05, fig08, fig09a, fig09b, fig10, table1
from sparsediag import Problem, inputscape, landscape, perturbation
from sparsediag.diagnostics.activations import Activations
from sparsediag.diagnostics.landscape import Landscape
from training.work import Work

ROOT = Path(__file__).parent.parent.parent
SMOKE = SCALES["smoke"]
ITEMS = [f"lottery/{n}" for n in ("fig05", "fig10", "fig11")]
ITEMS += [f"tost/{n}" for n in ("fig02", "fig03", "fig05", "fig08", "fig09a", "fig09b", "fig10")]
ITEMS.append("tost/table1")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("figures")
    assert driver.main(["--scale", "smoke", "--out", str(out), "--jobs", "2"]) == 0
    return out


def pictures(out: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in sorted(out.rglob("*")) if p.is_file()}


def test_the_items_are_those_of_the_papers() -> None:
    assert driver.names() == ITEMS


@pytest.mark.parametrize("name", ITEMS)
def test_every_item_is_drawn_as_pdf_and_png(drawn: Path, name: str) -> None:
    stem = drawn / "figures" / name
    assert stem.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    with Image.open(stem.with_suffix(".png")) as image:
        assert image.width >= 600
        assert len(np.unique(np.asarray(image.convert("L")))) > 10
        caption = image.info["Description"]
    assert driver.item(name).__doc__.strip() in caption
    assert "scale smoke" in caption or name in ("tost/fig03", "tost/fig05")


def test_a_second_call_does_no_work(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = pictures(drawn)
    assert driver.main(["--scale", "smoke", "--out", str(drawn)]) == 0
    assert f"0 drawn, {len(ITEMS)} up to date" in capsys.readouterr().out
    assert pictures(drawn) == before


def test_plan_lists_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert driver.main(["tost/fig02", "--scale", "smoke", "--out", str(tmp_path), "--plan"]) == 0
    out = capsys.readouterr().out
    assert out.count("missing") == 2  # the sparse training, and the dense one its mask needs
    assert "to draw  tost/fig02" in out
    assert not list(tmp_path.iterdir())


def test_a_lost_picture_is_drawn_again_without_training(drawn: Path) -> None:
    png = drawn / "figures/tost/fig08.png"
    png.unlink()
    before = pictures(drawn / "runs") | pictures(drawn / "results")
    assert driver.main(["tost/fig08", "--scale", "smoke", "--out", str(drawn)]) == 0
    assert png.exists()
    assert pictures(drawn / "runs") | pictures(drawn / "results") == before


def test_the_same_training_serves_several_items() -> None:
    plain = SMOKE.run(Need("history"))
    assert plain == SMOKE.run(Need("activations", split="test"))
    assert plain.id != SMOKE.run(Need("history", tweaks=TOST)).id
    assert SMOKE.key(Need("activations")) != SMOKE.key(Need("activations", split="test"))
    assert SMOKE.key(fig08.NEEDS["GSk"]) != SMOKE.key(fig08.NEEDS["GSw"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scale", "latpop"], "unknown scale 'latpop'; did you mean 'laptop'"),
        (["tost/fig9a"], "unknown figure 'tost/fig9a'; did you mean 'tost/fig09a'"),
        (["--jobs", "0"], "--jobs 0: need 1 or more"),
    ],
)
def test_a_wrong_word_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert driver.main([*words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_killed_half_way_it_goes_on(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "figures", "tost/fig02", "--scale", "smoke", "--jobs", "2"]
    words += ["--out", str(tmp_path)]
    first = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/finished")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    kept = pictures(tmp_path)
    done = list(tmp_path.glob("runs/*/finished"))
    assert done
    assert not (tmp_path / "figures/tost/fig02.png").exists()
    assert subprocess.run(words, cwd=ROOT, capture_output=True, check=False).returncode == 0
    assert (tmp_path / "figures/tost/fig02.png").exists()
    assert all(kept[str(file)] == file.stat().st_mtime_ns for file in done)


def test_a_failed_training_is_reported_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swish = SMOKE.run(table1.NEEDS["Swish", 0])
    folder = tmp_path / "runs" / swish.id
    folder.mkdir(parents=True)
    (folder / "last.pt").write_text("not a checkpoint")
    words = ["tost/table1", "tost/fig03", "--scale", "smoke", "--out", str(tmp_path)]
    assert driver.main(words) == 1
    shown = capsys.readouterr()
    assert f"{swish.id} failed" in shown.err
    assert "not a torch checkpoint" in shown.err
    assert "tost/table1 could not be drawn" in shown.err
    assert "1 drawn" in shown.out
    assert (tmp_path / "figures/tost/fig03.pdf").exists()


def _note(file: Path, word: str) -> None:
    if word == "bad":
        raise ValueError("no")
    with file.open("a") as log:
        log.write(word)


def test_work_keeps_the_order_and_reports_errors(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tasks = {w: (_note, (log, w)) for w in ("c", "b", "a", "bad", "after bad")}
    work = Work(tasks, {"c": {"b"}, "b": {"a"}, "after bad": {"bad"}})
    errors = work.do(jobs=1, done=lambda _: None)
    assert log.read_text() == "abc"
    assert {name: str(error) for name, error in errors.items()} == {"bad": "no"}


def lines(ax) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_ydata() for line in ax.get_lines()}


def test_figure_3_draws_the_activation_code() -> None:
    left, right = fig03.draw({}).axes
    x = left.get_lines()[0].get_xdata()
    np.testing.assert_array_equal(lines(left)["ReLU"], np.maximum(x, 0))
    np.testing.assert_allclose(lines(left)["Swish"], x / (1 + np.exp(-x)))
    assert lines(right)["Swish"][len(x) // 2] == pytest.approx(0.5)


def test_figure_5_goes_from_swish_to_relu() -> None:
    (ax,) = fig05.draw({}).axes
    curves = list(lines(ax).values())
    x = ax.get_lines()[0].get_xdata()
    np.testing.assert_allclose(curves[0], x / (1 + np.exp(-x)))
    np.testing.assert_array_equal(curves[-1], np.maximum(x, 0))
    gaps = [np.abs(curve - curves[-1]).max() for curve in curves]
    assert gaps == sorted(gaps, reverse=True)


def history(values: list[float], key: str) -> list[dict]:
    return [{"epoch": i, key: v, "lr": 0.1 if i < 2 else 0.01} for i, v in enumerate(values)]


@pytest.mark.parametrize(("figure", "key"), [(fig09a, "eigenvalue"), (fig09b, "gradient_flow")])
def test_figure_9_draws_the_geometric_mean_of_the_seeds(figure, key: str) -> None:
    results = {
        (label, seed): history([factor * 10**seed, 2.0, 3.0], key)
        for label, factor in {"sparse": 1.0, "ToST": 4.0}.items()
        for seed in (0, 2)
    }
    (ax,) = figure.draw(results).axes
    np.testing.assert_allclose(lines(ax)["sparse"], [10, 2, 3])
    np.testing.assert_allclose(lines(ax)["ToST"], [40, 2, 3])
    drop = [line.get_xdata()[0] for line in ax.get_lines() if line.get_linestyle() == ":"]
    assert set(drop) == {2.5}


def test_figure_9_has_its_numbers_as_markdown() -> None:
    results = {
        (label, seed): history([10.0**seed, 2.0, 3.0, 4.0], "eigenvalue")
        for label in ("sparse", "ToST")
        for seed in (0, 2)
    }
    rows = fig09a.markdown(results).splitlines()
    assert rows[0] == "| epoch | 1 | 2 | 4 |"
    assert rows[2] == "| sparse | 10 | 2 | 4 |"


def test_figure_2_shows_every_seed() -> None:
    results = {seed: history([1.0 + seed, 5.0, 2.0], "eigenvalue") for seed in range(3)}
    (ax,) = fig02.draw(results).axes
    thin = [line.get_ydata()[0] for line in ax.get_lines() if line.get_linewidth() == 0.5]
    assert sorted(value for value in thin if value < 4) == [1, 2, 3]


def test_figure_8_starts_from_zero() -> None:
    t = np.linspace(-1, 1, 5)
    loss = np.array([2 + t**2])
    net = torch.nn.Linear(2, 1)
    problem = Problem(net, [(torch.eye(2), torch.ones(2, 1))], loss=torch.nn.MSELoss())
    result = replace(perturbation(problem, points=5), distance=t, loss=loss, centre=2.0)
    (ax,) = fig08.draw(dict.fromkeys(fig08.RUNS, result)).axes
    for change in lines(ax).values():
        np.testing.assert_allclose(change, t**2)


def flat(height: float) -> Landscape:
    """A level landscape whose centre has the loss 1."""
    net = torch.nn.Linear(2, 1)
    problem = Problem(net, [(torch.eye(2), torch.ones(2, 1))], loss=torch.nn.MSELoss())
    real = landscape(problem, points=3)
    return replace(real, loss=np.full((3, 3), height), centre=1.0)


def test_lottery_figure_5_has_common_levels_and_the_mean_rise() -> None:
    results = {label: flat(2.0 + i) for i, label in enumerate(lottery5.RUNS)}
    panels = lottery5.draw(results).axes[: len(results)]
    assert len({tuple(ax.collections[0].levels) for ax in panels}) == 1
    assert [ax.get_title() for ax in panels][1] == "skip: mean rise 2.00"


def test_figure_10_has_common_levels_and_the_mean_rise_of_the_images() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    problem = Problem(net, [(torch.rand(5, 1, 2, 2), torch.arange(5) % 3)])
    real = inputscape(problem, points=3)
    results = {
        key: replace(real, loss=np.full((5, 3, 3), 2.0 + i), centre=np.ones(5))
        for i, key in enumerate(fig10.NEEDS)
    }
    panels = fig10.draw(results).axes[: len(results)]
    for row in (panels[:4], panels[4:]):
        assert len({tuple(ax.collections[0].levels) for ax in row}) == 1
    assert [ax.get_title() for ax in panels][1] == "GSk: mean rise 2.000"


def test_early_is_the_papers_fifth_epoch() -> None:
    assert SCALES["laptop"].early == 1
    assert replace(SCALES["laptop"], epochs=180).early == 5
    assert SMOKE.key(lottery5.NEEDS["LS"]) != SMOKE.key(replace(lottery5.NEEDS["LS"], when="best"))


def test_table_1_takes_the_last_blocks_and_their_spread() -> None:
    def result(shift: float) -> Activations:
        small = np.array([0.9, 0.1, 0.9, 0.2, 0.9, 0.3, 0.9, 0.4]) + shift
        return Activations(
            names=[f"b{i}" for i in range(8)], zeros=small, small=small, dead=small,
            stage_last=[False, True] * 4, threshold=0.01, source={},
        )  # fmt: skip

    results = {(label, seed): result(0.01 * seed) for label in table1.PAPER for seed in range(3)}
    found = table1.rows(results)
    assert found[0] == ["ReLU", "paper", "27.14", "39.33", "39.48", "57.93"]
    assert found[1][2:] == ["11.00 ± 1.00", "21.00 ± 1.00", "31.00 ± 1.00", "41.00 ± 1.00"]
    assert "| ReLU | paper | 27.14 |" in table1.markdown(results)


def test_results_are_kept_apart_by_scale(tmp_path: Path) -> None:
    need = Need("landscape")
    small, large = (store.path(need, SCALES[name], tmp_path) for name in ("smoke", "laptop"))
    assert small != large
