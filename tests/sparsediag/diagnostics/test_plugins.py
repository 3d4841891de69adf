"""Plug-ins: a file or an installed package adds diagnostics; what is wrong with one is one line."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sparsediag import Checkpoint, CheckpointError, Result
from sparsediag.cli.app import main
from sparsediag.core.fingerprint import is_custom
from sparsediag.diagnostics import ADDED
from sparsediag.diagnostics.plugins import load_plugins
from sparsediag.diagnostics.report.measure import Measured
from sparsediag.diagnostics.report.page import plain_section

pytestmark = pytest.mark.usefixtures("plugins_are_removed")
GOLDEN = Path(__file__).parents[2] / "golden" / "checkpoint.pt"
Captured = pytest.CaptureFixture[str]
HEAD = """
from dataclasses import dataclass
import sparsediag as sd
from sparsediag.diagnostics.traits import InReport, Traits, diagnostic
"""
COUNT = """
@dataclass(frozen=True, kw_only=True, eq=False)
class Count(sd.Result):
    count: int

    def table(self):
        return [{"weights": self.count}]

@diagnostic(Traits(report=InReport()))
def count(problem) -> Count:
    return Count(count=problem.size, source={})
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


WRONG = {
    "missing": (None, ["mine.py", "no such file"]),
    "syntax": ("def count(:", ["mine.py", "SyntaxError", "line 1"]),
    "import": ("import nowhere_at_all", ["mine.py", "ModuleNotFoundError", "nowhere_at_all"]),
    "exit": ("raise SystemExit(3)", ["mine.py", "SystemExit: 3"]),
    "nothing": ("def count(problem): return 1", ["mine.py", "@diagnostic()"]),
    "a diagnostic": (
        HEAD + COUNT.replace("count(p", "trace(p"),
        ["mine.py", "'trace'", "trace.py"],
    ),
    "a command": (HEAD + COUNT.replace("count(p", "info(p"), ["mine.py", "'info'"]),
    "a result": (HEAD + COUNT.replace("Count", "Trace"), ["mine.py", "Trace"]),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_a_file_is_one_line(
    text: str | None, words: list[str], capsys: Captured
) -> None:
    if text is not None:
        Path("mine.py").write_text(text)
    kinds = dict(Result.kinds)
    try:
        assert main(["count", str(GOLDEN), "--plugin", "mine.py"]) == 2
    finally:
        Result.kinds.update(kinds)  # the class Trace of sparsediag
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert all(word in shown.err for word in words)


def test_a_result_without_a_picture_writes_and_shows_none(capsys: Captured) -> None:
    Path("mine.py").write_text(HEAD + COUNT)
    words = ["--images", "20", "--plugin=mine.py", "--out", "count.npz"]
    assert main(["count", str(GOLDEN), *words]) == 0
    assert capsys.readouterr().out.endswith("wrote count.npz\n")
    assert {path.name for path in Path().iterdir()} == {"mine.py", "count.npz"}
    results = {"count": {"net": Result.load("count.npz")}}
    section = plain_section("count", Measured({}, results, None, None, {})).html()
    assert ">weights</th>" in section
    assert "<svg" not in section


def test_a_file_of_a_plugin_is_read_once_its_class_is_there() -> None:
    Path("mine.py").write_text(HEAD + COUNT)
    load_plugins(["mine.py"])
    ADDED["count"](Checkpoint.load(GOLDEN).problem(images=20)).save("count.npz")
    kind = type(Result.load("count.npz"))
    assert kind.__name__ == "Count"
    del Result.kinds["Count"]
    with pytest.raises(CheckpointError, match=r"count.npz holds Count, .*plug-in"):
        Result.load("count.npz")


@pytest.fixture
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that pip would have installed, with an entry point."""
    site = folder / "site-packages"
    (site / "pruners").mkdir(parents=True)
    info = site / "pruners-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pruners\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sparsediag.plugins]\nany = pruners\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "pruners", raising=False)
    return site / "pruners" / "__init__.py"


def test_an_installed_package_needs_no_flag(installed: Path, capsys: Captured) -> None:
    installed.write_text(HEAD + COUNT)
    (installed.parents[2] / "sparsediag.py").write_text("raise RuntimeError")  # in the folder
    assert main(["count", str(GOLDEN), "--images", "20", "--out", "count.npz"]) == 0
    assert str(Checkpoint.load(GOLDEN).problem(images=20).size) in capsys.readouterr().out
    assert is_custom(Result.kinds["Count"])  # so that its code is part of the names of runs


def test_an_installed_package_that_fails_is_left_out(installed: Path, capsys: Captured) -> None:
    installed.write_text("import nowhere_at_all")
    assert main(["info", str(GOLDEN)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "pruners" in line
    assert "nowhere_at_all" in line


def test_a_checkpoint_loads_no_code() -> None:
    mark = Path("mark")
    Path("mine.py").write_text(f"open({str(mark)!r}, 'w')\ndef batches(): return []")
    checkpoint = Checkpoint.load(GOLDEN)
    run = {"mask": {"method": "mine.py:batches"}, "tweaks": ["mine"], "plugin": ["mine.py"]}
    replace(checkpoint, run=run, data="mine.py:batches").save("evil.pt")
    replace(checkpoint, run=run, model="mine.py:batches").save("evil2.pt")
    for file in ("evil.pt", "evil2.pt"):
        main(["info", file])
        assert main(["trace", file, "--images", "20"]) == 2
    assert not mark.exists()
