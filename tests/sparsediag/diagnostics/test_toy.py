"""A diagnostic is one file: the example of CONTRIBUTING.md, followed word for word, both ways."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sparsediag
from figures import store
from figures.measurement import Measurement
from figures.scales import SCALES
from sparsediag import Checkpoint, Course, Result, diagnostics
from sparsediag.cli import app
from training.config import Run

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "checkpoint.pt"
Captured = pytest.CaptureFixture[str]


BLOCKS: list[tuple[str, str]] = re.findall(
    r"```(\w*)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL
)
PLACE = next(i for i, (_, text) in enumerate(BLOCKS) if "(Result)" in text)
FILE, COMMANDS, LINE = (text for _, text in BLOCKS[PLACE : PLACE + 3])


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """The diagnostic `sharpness`, in a folder that belongs to the room for as long as a test."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "sharpness.py").write_text(FILE)
    ((name, summary),) = eval("{" + LINE + "}").items()
    monkeypatch.setitem(diagnostics.DIAGNOSTICS, name, summary)
    monkeypatch.setattr(diagnostics, "__path__", [*diagnostics.__path__, str(tmp_path / "room")])
    monkeypatch.chdir(tmp_path)
    importlib.reload(app)
    yield sparsediag.sharpness
    monkeypatch.undo()
    importlib.reload(app)
    del sys.modules[f"sparsediag.diagnostics.{name}"], diagnostics.sharpness
    del Result.kinds["Sharpness"]


@pytest.mark.usefixtures("plugins_are_removed")
def test_the_recipe_without_a_change_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sharpness.py").write_text(FILE)
    shutil.copy(GOLDEN, "ckpt.pt")
    few = {"sharpness": "--images 40", "report": "--images 20 --points 3 --top 1"}
    for line in COMMANDS.splitlines():
        assert app.main([*shlex.split(line)[1:], *few[line.split()[1]].split()]) == 0
    out = capsys.readouterr().out
    assert "Return the rise of the loss after a step along the gradient" in out
    assert "Length of the step." in out
    assert "wrote ckpt-sharpness-images=40-radius=0.1.npz" in out
    assert len(list(tmp_path.glob("ckpt-sharpness-*.png"))) == 1
    section = Path("report.html").read_text().split('<section id="sharpness"')[1]
    section = section.split("</section>")[0]
    assert section.count("<svg") == 1
    assert ">rise</th>" in section


def test_the_command_its_help_and_its_files(toy: Callable[..., Any], capsys: Captured) -> None:
    assert app.main(["--help"]) == 0
    assert "rise of the loss after a step uphill in one layer" in capsys.readouterr().out
    words = ["--images", "40", "--radius", "0.1", "--out", "toy.npz", "--formats", "svg"]
    assert app.main(["sharpness", str(GOLDEN), *words]) == 0
    assert capsys.readouterr().out.endswith("wrote toy.npz toy.svg\n")
    result = Result.load("toy.npz")
    assert type(result).__name__ == "Sharpness"
    again = toy(Checkpoint.load(GOLDEN).problem(images=40), radius=0.1)
    assert result.json() == again.json()
    assert (again.rises > 0).all()


@pytest.mark.usefixtures("toy")
def test_a_run_folder(tmp_path: Path) -> None:
    run, checkpoint = tmp_path / "run", Checkpoint.load(GOLDEN)
    run.mkdir()
    for epoch in (1, 2):
        replace(checkpoint, step=epoch).save(run / f"epoch-{epoch:03}.pt")
    assert app.main(["sharpness", "run", "--images", "40"]) == 0
    history = Result.load(run / "sharpness-images=40.npz")
    assert isinstance(history, Course)
    assert history.of("rises").shape == (2, len(history.names))
    assert (run / "sharpness-images=40.png").exists()


@pytest.mark.usefixtures("toy")
def test_figures(tmp_path: Path) -> None:
    need, scale = Measurement(Run(), "sharpness", options=(("radius", 0.1),)), SCALES["smoke"]
    folder = tmp_path / "runs" / scale.adapt(need.run).id
    folder.mkdir(parents=True)
    Checkpoint.load(GOLDEN).save(folder / "best.pt")
    store.measure(need, scale, tmp_path)
    result = store.load(need, scale, tmp_path)
    assert type(result).__name__ == "Sharpness"
    assert result.source["options"] == {"radius": 0.1}
