"""Masks and tweaks of the user's files, and the names of runs that know their code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sparsediag.checkpoint import resolve, user_code
from sparsediag.core.fingerprint import describe_code
from sparsediag.diagnostics import plugins
from training.__main__ import main
from training.config import Run
from training.masks import METHODS
from training.plugins import load_plugins
from training.tweaks import TWEAKS

pytestmark = pytest.mark.usefixtures("plugins_are_removed")
Captured = pytest.CaptureFixture[str]

# each of these calls `score` of another file, in its own way
MINE = """
from dataclasses import dataclass
import torch
from torch import nn
import my_helper
import my_package.inner
from my_helper import score
from sparsediag.data.datasets import DATASETS, Source
from sparsediag.models import MODELS
from training.masks import Method
from training.tweaks import Tweak

@dataclass(frozen=True)
class LargestScore(Method):
    def start(self, problem, trained, *, seed):
        return score(problem.weights)

@dataclass(frozen=True)
class DeepScore(Method):
    def start(self, problem, trained, *, seed):
        return my_package.inner.score(problem.weights)

@dataclass(frozen=True)
class LateScore(Method):
    def start(self, problem, trained, *, seed):
        from my_helper import score as late
        return late(problem.weights)

@dataclass(frozen=True)
class Shifted(Tweak):
    def loss(self, loss, epoch, epochs, state=None):
        return lambda *given: loss(*given) + my_helper.score(0)

class Net(nn.Linear):
    def forward(self, x):
        return score(super().forward(x))

def make(*, classes=10, channels=1, activation="relu"):
    return Net(64, classes)

MODELS["mine"] = make
DATASETS["mine"] = Source(lambda root: score(root), 10, ((0.5, 0.5),))

def loss(outputs, targets):
    return score(outputs - targets).sum()
"""
SCORE = "def score(x):\n    return x + 1\n"
RUNS: dict[str, dict[str, Any]] = {
    "mask": {"mask": {"method": "largest_score", "density": 0.5}},
    "mask, by a module in a package": {"mask": {"method": "deep_score", "density": 0.5}},
    "mask, imported in a function": {"mask": {"method": "late_score", "density": 0.5}},
    "tweak": {"tweaks": ["shifted"]},
    "model": {"model": {"name": "mine"}},
    "data": {"data": "mine"},
}


def ids_in_a_new_process() -> dict[str, str]:
    """The names of the runs, and the description of the loss, with the files as they are now."""
    user_code._import_file.cache_clear()
    plugins.FILES.clear()
    for table in (METHODS, TWEAKS):
        for name in [name for name in table if name.endswith(("_score", "shifted"))]:
            del table[name]
    for name in ("my_helper", "my_package", "my_package.inner"):
        sys.modules.pop(name, None)
    load_plugins(["mine.py"])
    loss = describe_code(resolve.loss("mine.py:loss"))
    return {kind: Run.of(table).id for kind, table in RUNS.items()} | {"loss": loss}


def test_names_of_runs_know_the_code_of_a_file_and_of_those_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    Path("my_package").mkdir()
    Path("my_package/__init__.py").touch()
    helpers = [Path("my_helper.py"), Path("my_package/inner.py")]
    ids = []
    for text in (SCORE, SCORE.replace("x + 1", "x + 2222"), "# comment\n" + SCORE):
        for helper in helpers:
            helper.write_text(text)
        ids.append(ids_in_a_new_process())
    assert all(ids[0][kind] != ids[1][kind] for kind in ids[0])
    del ids[0]["mask, imported in a function"]  # which knows the bytes of the file
    assert all(ids[2][kind] == name for kind, name in ids[0].items())
    Path("elsewhere").mkdir()
    for helper in (Path("mine.py"), *helpers[:1], helpers[1].parent):
        helper.rename(Path("elsewhere") / helper)
    monkeypatch.chdir("elsewhere")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    assert ids_in_a_new_process() == ids[2]


TAKEN = {
    "a mask": ("class Snip(Method):\n    start = None", ["mask 'snip'", "snip.py"]),
    "a tweak": ("class Smoothing(Tweak):\n    pass", ["tweak 'smoothing'", "smoothing.py"]),
    "a group": ("class Tost(Tweak):\n    pass", ["tweak 'tost'"]),
    "an error": ("density = 1 / 0", ["ZeroDivisionError"]),
}


@pytest.mark.parametrize(("text", "words"), TAKEN.values(), ids=TAKEN.keys())
def test_what_is_wrong_with_a_file_is_one_line(
    text: str, words: list[str], tmp_path: Path, capsys: Captured
) -> None:
    masks, tweaks = METHODS.copy(), TWEAKS.copy()
    file = tmp_path / "mine.py"
    file.write_text(f"from training.masks import Method\nfrom training.tweaks import Tweak\n{text}")
    assert main(["digits", "--out", str(tmp_path / "out"), "--plugin", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in ["mine.py", *words])
    assert (masks, tweaks) == (METHODS, TWEAKS)
    assert not (tmp_path / "out").exists()


def test_an_unknown_mask_says_how_to_load_a_file(tmp_path: Path, capsys: Captured) -> None:
    for words in (["--mask.method=mine"], ["--tweaks=['mine']"]):
        assert main(["digits", "--out", str(tmp_path), *words]) == 2
        assert "--plugin" in capsys.readouterr().err
