"""Tables of trainings: their groups, intervals and what is left out, from written folders."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsediag import Runs, runs
from sparsediag.cli.app import main
from sparsediag.core.estimate import Estimate

Train = Callable[..., Path]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Return a function that writes the folder of a training with a test accuracy in percent."""

    def write(name: str, accuracy: float | None, seed: int = 0, **keys: str) -> Path:
        folder = tmp_path / "out" / "runs" / name
        folder.mkdir(parents=True)
        table = {"data": '"digits"', "model": '{name = "mlp"}', **keys, "seed": str(seed)}
        (folder / "run.toml").write_text("".join(f"{k} = {v}\n" for k, v in table.items()))
        row: dict[str, Any] = {"epoch": 1, "val_accuracy": 0.5, "sparsity": 0.75}
        if accuracy is not None:
            row |= {"best": True, "test_accuracy": accuracy / 100, "test_loss": 1.0}
        (folder / "history.jsonl").write_text(json.dumps(row) + "\n")
        return folder

    return write


SNIP = '{method = "snip", density = 0.1}'


def test_groups_differ_in_all_but_the_seed_and_what_is_recorded(train: Train) -> None:
    for seed, accuracy in enumerate((90, 92, 97)):
        train(f"snip {seed}", accuracy, seed, mask=SNIP, record="{gradient_flow = true}")
        train(f"lr {seed}", accuracy + 1, seed, mask=SNIP, optim="{lr = 0.5}")
    train("dense", 99)
    train("file", 95, mask='{method = "file", path = "mask.pt"}', tweaks="{smoothing = {}}")
    found = runs(train("more", 91, 3, mask=SNIP).parent.parent)
    assert [list(group.values()) for group in found.groups] == [
        ["dense", "plain", "1", ""],
        ["file", "smoothing", "0.25", ""],
        ["snip", "plain", "0.1", "0.5"],
        ["snip", "plain", "0.1", ""],
    ]
    assert found.seeds == [[0], [0], [0, 1, 2], [0, 1, 2, 3]]
    assert found.labels == ["dense", "file + smoothing", "snip, lr 0.5", "snip"]
    assert found.estimates[2] == Estimate.of([91.0, 93.0, 98.0])
    assert found.densities.tolist() == [1, 0.25, 0.1, 0.1]
    assert found.shared == "mlp on digits"
    row = found.table()[2]
    assert (row["test accuracy (%)"], row["±"]) == ("94.00", "8.96")
    assert found.table()[0]["±"] == ""


def test_what_is_not_finished_or_has_an_older_twin_is_left_out_and_told(train: Train) -> None:
    old = train("old", 50, mask=SNIP)
    os.utime(old / "history.jsonl", (1, 1))
    train("new", 60, mask=SNIP)
    train("running", None, 1, mask=SNIP)
    found = runs(old.parent)
    assert found.accuracies == [[60.0]]
    left, waiting = found.left_out
    assert (str(old) in left, "code or data" in left) == (True, True)
    assert "not finished" in waiting
    assert "seed 1" in waiting
    assert set(found.left_out) <= set(found.remarks())


def test_networks_and_data_that_differ_are_columns(train: Train) -> None:
    train("one", 50, mask=SNIP)
    found = runs(train("other", 60, mask=SNIP, data='"mnist"').parent)
    assert [group["data"] for group in found.groups] == ["digits", "mnist"]
    assert found.labels == ["snip, data digits", "snip, data mnist"]
    assert found.shared == "mlp"


def test_one_density_is_drawn_as_rows_and_several_as_curves(train: Train) -> None:
    for seed in (0, 1):
        train(f"snip {seed}", 90 + seed, seed, mask=SNIP)
        out = train(f"dense {seed}", 95 + seed, seed).parent
    ax = runs(out).plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dense", "snip, 90 % sparse"]
    rings = [line.get_xdata() for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(rings, [[95, 96], [90, 91]])
    train("sparser", 80, mask='{method = "snip", density = 0.05}')
    ax = runs(out).plot()
    (curve,) = ax.containers
    assert sorted(curve.lines[0].get_ydata()) == pytest.approx([80, 90.5])
    assert [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"] == [95.5]
    assert [text.get_text() for text in ax.figure.legends[0].texts] == ["dense", "snip"]


def test_a_table_keeps_its_numbers_in_its_file(train: Train, tmp_path: Path) -> None:
    found = runs(train("one", 50, mask=SNIP).parent)
    assert Runs.load(found.save(tmp_path / "runs.npz")).table() == found.table()
    tex = found.exports()["tex"](tmp_path / "runs.tex").read_text()
    assert r"snip & plain & 0.1 & 0 & 50.00 \\" in tex


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["empty"], "empty: no finished training is here"),
        ([], "need the folder"),
        (["out", "--landscapes"], "compares two networks or more"),
        (["out", "--points", "1"], "--points 1: need"),
        (["out", "--formats", "csv"], "csv"),
        (["out", "--out", "table.txt"], "table.txt"),
    ],
)
def test_what_cannot_be_tabled_is_one_line(
    words: list[str],
    message: str,
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train("one", 50, mask=SNIP)
    monkeypatch.chdir(tmp_path)
    assert main(["runs", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert message in err
    assert not list(tmp_path.glob("*.npz"))
