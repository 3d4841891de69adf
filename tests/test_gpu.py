"""`make gpu` runs to its end on a CPU at tiny sizes; what crashes costs one section."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsediag.data.datasets import DATASETS
from tests.gpu import landscapes, products, summary, throughput, top
from tests.gpu.__main__ import SHARES
from tests.gpu.section import measure
from tests.gpu.settings import Settings
from training import loop

ROOT = Path(__file__).parent.parent


def call(out: Path, *words: str, path: str = "") -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and the rows."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path, str(ROOT))))}
    command = [sys.executable, "-m", "tests.gpu", "--dry", "--out", str(out), *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = (out / "results.jsonl").read_text().splitlines()
    return done.returncode, [json.loads(line) for line in lines]


# one of each sort; other tests have the rest, and `make gpu DRY=1` all
ONLY = {
    "smoke": "mlp;*ghosts;*LSTM",
    "throughput": "*bf16, masked + ToST;*eager;*released",
    "products": "*gradient;*tape;*at a time",
    "checks": "mask: r*;mask: s*;the CPU's mask: r*;diagnostic: l*;tweak: tost;two jobs*;half*",
}


def here(out: Path, *sections: str) -> list[dict[str, Any]]:
    """The rows of sections that are run in this process, which starts faster than others."""
    found: list[dict[str, Any]] = []
    sets, often = dict(DATASETS), loop.SAVE_EVERY
    with warnings.catch_warnings(action="ignore"):
        for name in sections:
            lines = StringIO()
            settings = Settings(torch.device("cpu"), True, None, out, time.monotonic() + 250)
            measure(name, settings, lines, only=ONLY.get(name, "*"))
            rows = map(json.loads, lines.getvalue().splitlines())
            found += [{"section": name, **row} for row in rows if "begun" not in row]
    for name in DATASETS.keys() - sets:
        del DATASETS[name]
    loop.SAVE_EVERY = often
    return found


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a dry call."""
    out = tmp_path_factory.mktemp("gpu")
    rows = here(out, *SHARES)
    (out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row for row in rows if row["status"] not in ("ok", "skipped")] == []
    return out


def test_every_section_measures_something(dry: Path) -> None:
    rows = [json.loads(line) for line in (dry / "results.jsonl").read_text().splitlines()]
    assert {row["section"] for row in rows if row["status"] == "ok"} == set(SHARES)
    reasons = {row["note"] for row in rows if row["status"] == "skipped"}
    assert all(
        " on a CPU" in reason or " not installed" in reason or "processes take" in reason
        for reason in reasons
    )


def test_trainings_go_on_from_those_that_are_kept(dry: Path) -> None:
    kept = [json.loads(line) for line in (dry / "kept.jsonl").read_text().splitlines()]
    assert all(row["history"][-1]["test_accuracy"] > 0 for row in kept)
    assert any(row["results"] for row in kept)
    lines = (dry / "results.jsonl").read_text().splitlines()
    earlier = {json.loads(line)["what"] for line in lines}
    first, *others = here(dry, "trainings")
    assert first["trainings"] == len({row["run"] for row in kept})
    assert others
    assert not earlier & {row["what"] for row in others}


def test_the_summary_replaces_its_section(dry: Path, tmp_path: Path) -> None:
    file, kept = tmp_path / "RESULTS.md", tmp_path / "kept.jsonl"
    file.write_text(
        "# Benchmarks\n\nBy hand.\n\n## speed\n\nfast\n\n## GPU\n\nold\n\n## last\n\nx\n"
    )
    summary.main(dry, file, kept)
    once = file.read_text(), kept.read_text()
    summary.main(dry, file, kept)
    assert (file.read_text(), kept.read_text()) == once
    text = once[0]
    assert text.startswith("# Benchmarks\n\nBy hand.\n\n## speed\n\nfast\n\n## GPU\n\nMeasured by")
    assert text.endswith("\n\n## last\n\nx\n")
    assert "old" not in text
    assert all(f"\n### {name}\n" in text for name in SHARES)
    assert "not measured" in text  # the bars: nothing is claimed of a GPU that was not there


def test_bars() -> None:
    name = "resnet18, 512, bf16, {}"
    rows = [
        {
            "what": name.format("masked + ToST"),
            "status": "ok",
            "images/s": 50_000.0,
            "epoch s": 2.0,
        },
        {"what": name.format("dense"), "status": "ok", "images/s": 60_000.0},
        {"what": "resnet20, 512, bf16, masked", "status": "wrong", "images/s": 200_000.0},
    ]
    found = summary.bars(rows)
    assert [row[1:] for row in found[:3]] == [
        ("50,000", "yes"), ("0.833", "no"), ("not measured", ""),
    ]  # fmt: skip
    assert found[4][1:] == ("2", "no")


def test_every_bar_is_measured_at_full_size(tmp_path: Path) -> None:
    settings = Settings(torch.device("cpu"), False, None, tmp_path, deadline=0.0)
    names = {
        what
        for section in (throughput, products, top, landscapes)
        for what, _ in section.measurements(settings)  # nothing is called
    }
    assert {name for bar in summary.BARS for name in (bar.what, bar.over) if name} <= names


def test_a_crash_costs_one_section(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'tests.gpu.section' in sys.orig_argv and 'smoke' in sys.orig_argv:\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    code, rows = call(tmp_path, "smoke", "ceilings", "--seconds", "100", path=str(tmp_path))
    assert code == 1
    crashed, *others = rows
    assert (crashed["section"], crashed["status"]) == ("smoke", "error")
    assert "SIGSEGV" in crashed["note"]
    assert {row["section"] for row in others} == {"ceilings"}


def test_a_section_that_runs_out_of_time(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\nif 'tests.gpu.section' in sys.orig_argv:\n    time.sleep(60)\n"
    )
    code, rows = call(tmp_path, "smoke", "--seconds", "0.5", path=str(tmp_path))
    assert code == 1
    assert [row["status"] for row in rows] == ["error"]
    assert "out of time" in rows[0]["note"]


def test_no_gpu_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.gpu", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--dry" in done.stderr
