"""Two trainings that differ in their tweaks have names that say so, in every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sparsediag as sd
from sparsediag.checkpoint.run_folder import summarise
from sparsediag.cli.app import main
from training.__main__ import main as train

RUN = """
data = "digits"
model = {name = "lenet300", width = 8}
mask = {method = "random", density = 0.3}
optim = {epochs = 2, batch_size = 390}
"""
FEW = ["--images", "50", "--points", "3", "--dims", "1"]

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The checkpoints of a training without tweaks, and of one with label smoothing."""
    folder = tmp_path_factory.mktemp("trainings")
    (folder / "run.toml").write_text(RUN)
    words = [str(folder / "run.toml"), "--out", str(folder / "out"), "--device", "cpu"]
    assert train(words) == train([*words, "--tweaks=['smoothing']"]) == 0
    labels = {summarise(file.parent)["tweaks"]: str(file) for file in folder.rglob("best.pt")}
    return [labels["plain"], labels["smoothing"]]


def test_info_says_what_each_is(checkpoints: list[str], capsys: Captured) -> None:
    summary = summarise(Path(checkpoints[1]).parent)
    assert main(["info", checkpoints[1]]) == 0
    out = capsys.readouterr().out
    facts = dict(words for line in out.splitlines() if len(words := line.split(maxsplit=1)) == 2)
    assert (facts["method"], facts["tweaks"], facts["seed"]) == ("random", "smoothing", "0")
    assert "made by sparsediag 0" in " ".join(out.split())
    assert f"validation accuracy {summary['val_accuracy']:.2%}" in " ".join(out.split())
    assert "lenet300 digits random density 0.3 smoothing seed 0" in out
    assert main(["info", *checkpoints, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert [about[name]["learning rate"] for name in ("plain", "smoothing")] == [0.1, 0.1]
    assert [about[name]["epochs to train"] for name in ("plain", "smoothing")] == [2, 2]


def test_comparisons_have_names_that_tell(
    checkpoints: list[str], tmp_path: Path, capsys: Captured
) -> None:
    out = ["--out", str(tmp_path / "compared.npz"), "--formats", ""]
    assert main(["landscape", *checkpoints, "--compare", *FEW, *out, "--names", "SNIP, LS"]) == 0
    assert sd.Comparison.load(tmp_path / "compared.npz").names == ["SNIP", "LS"]
    assert main(["info", *checkpoints]) == 0
    assert "IoU of plain, smoothing" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["landscape", "info", "report"])
def test_wrong_names_are_refused(command: str, checkpoints: list[str], capsys: Captured) -> None:
    assert main([command, *checkpoints, "--names", "one"]) == 2
    assert "--names one: need 2 different names" in capsys.readouterr().err
    assert main([command, checkpoints[0], "--names", "one,two"]) == 2
    assert "--names one,two: need" in capsys.readouterr().err


def test_the_summary_of_a_training_is_a_file(checkpoints: list[str]) -> None:
    folder = Path(checkpoints[1]).parent
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == summarise(folder)
    assert summary["label"] == "lenet300 digits random density 0.3 smoothing seed 0"
    history = sd.Checkpoint.load(checkpoints[1]).history
    best = next(row for row in history if row.get("best"))
    assert summary["test_accuracy"] == best["test_accuracy"]
    assert summary["best_epoch"] == 1 + history.index(best)
    assert (summary["finished"], summary["epochs_trained"], summary["lr"]) == (True, 2, 0.1)


def test_a_training_that_has_begun_has_a_summary(checkpoints: list[str], tmp_path: Path) -> None:
    run = (Path(checkpoints[0]).parent / "run.toml").read_text()
    (tmp_path / "run.toml").write_text(run)
    summary = summarise(tmp_path)
    assert (summary["finished"], summary["epochs_trained"]) == (False, 0)
    assert summary["test_accuracy"] is None
