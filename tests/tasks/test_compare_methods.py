"""Methods, densities and seeds from one file: the table and the pictures, with two commands."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import stdtrit

import sparsediag as sd
from sparsediag.cli.app import main
from training.__main__ import main as train

Captured = pytest.CaptureFixture[str]

TOST_OR_PLAIN = """
data = "digits"
seed = [0, 1]
tweaks = [[], {tost = {}, rescale = {steps = 2}}]

[model]
name = "lenet300"
width = 32

[mask]
method = "snip"
density = 0.05  # 95 % sparse

[optim]
epochs = 2
"""

FIVE_DENSITIES = """
data = "digits"
seed = [0, 1, 2]

[model]
name = "lenet300"
width = 8

[mask]
method = ["snip", "random"]
density = [0.9, 0.7, 0.5, 0.4, 0.3]

[optim]
epochs = 1
batch_size = 390
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*lines: str) -> None:
    """Run lines as they are typed, in this process."""
    for line in lines:
        words = shlex.split(line)
        if words[0] == "python":
            assert train(words[3:]) == 0
        else:
            assert main(words[1:]) == 0


def test_tost_against_plain_is_a_table_and_one_figure(place: Path, capsys: Captured) -> None:
    Path("sweep.toml").write_text(TOST_OR_PLAIN)
    run(
        "python -m training sweep.toml",
        "sparsediag runs out/ --landscapes --points 3 --images 50",
    )
    shown = capsys.readouterr()
    assert shown.err.startswith("4 runs; 0 of 4 trainings are finished\n")
    rows = [line.split() for line in shown.out.splitlines()]
    table = sd.Runs.load("out/runs.npz")
    assert [group["tweaks"] for group in table.groups] == ["plain", "tost"]
    for group, values in zip(table.groups, table.accuracies, strict=True):
        half = stdtrit(1, 0.975) * np.std(values, ddof=1) / np.sqrt(2)
        numbers = ["0,", "1", f"{np.mean(values):.2f}", f"{half:.2f}"]
        assert ["snip", group["tweaks"], "0.05", *numbers] in rows
    files = "out/runs-landscapes-points=3-images=50"
    assert shown.out.splitlines()[-1] == f"wrote {files}.npz {files}.png"
    compared = sd.Comparison.load(f"{files}.npz")
    assert compared.names == [f"{n}, seed {s}" for n in ("snip", "snip + tost") for s in (0, 1)]
    with Image.open(f"{files}.png") as picture:
        assert picture.width == 1400  # a page, at 200 dots an inch
    figure = table.plot_with(compared)
    assert [title.split(": ")[1] for ax in figure.axes if ": " in (title := ax.get_title())] == [
        f"{accuracy:.1f} %" for values in table.accuracies for accuracy in values
    ]
    assert {ax.get_xlabel() for ax in figure.axes} >= {
        "test accuracy (%), a ring for each seed",
        "distance from the net (filter norms)",
    }
    assert not list(place.glob("out/.*"))


def test_five_densities_three_seeds_two_methods(place: Path, capsys: Captured) -> None:
    Path("sweep.toml").write_text(FIVE_DENSITIES)
    run("python -m training sweep.toml", "sparsediag runs out/")
    shown = capsys.readouterr()
    assert "30 runs; 0 of 30 trainings are finished" in shown.err
    assert "29 of 30 trainings are finished, about 0.0 min left" in shown.err
    assert shown.out.splitlines()[-1].split() == [
        "wrote", *(f"out/runs.{ending}" for ending in ("npz", "png", "csv", "md", "tex")),
    ]  # fmt: skip
    table = sd.runs("out")
    assert [group["mask"] for group in table.groups] == ["random"] * 5 + ["snip"] * 5
    assert table.densities.tolist() == [0.9, 0.7, 0.5, 0.4, 0.3] * 2
    assert table.seeds == [[0, 1, 2]] * 10

    written = list(csv.DictReader(Path("out/runs.csv").read_text().splitlines()))
    assert [float(row["test accuracy (%)"]) for row in written] == [e.mean for e in table.estimates]
    assert [float(row["test accuracy (%) ±"]) for row in written] == [
        e.half for e in table.estimates
    ]
    ax = table.plot()
    assert ax.figure.get_suptitle() == "lenet300 on digits: mean of 3 seeds, 95 % interval"
    means = np.reshape([estimate.mean for estimate in table.estimates], (2, 5))
    for bars, label, mean in zip(ax.containers, ("random", "snip"), means, strict=True):
        assert bars.get_label() == label
        np.testing.assert_allclose(bars.lines[0].get_ydata(), mean)

    run("python -m training sweep.toml")  # again: nothing is left to do
    assert "30 runs; 30 of 30 trainings are finished" in capsys.readouterr().err
