"""The pretend GPU (tests/pretend) goes through everything that computes; and it finds mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sparsediag.diagnostics import DIAGNOSTICS
from sparsediag.models import SKIPS
from tests.pretend import scenarios
from training.masks import METHODS
from training.tweaks import TWEAKS

ROOT = Path(__file__).parent.parent
PROCESSES = [("records", "steps", "planted"), ("diagnostics", "masks", "tweaks")]
RECORDS = ["records", "rewinding", "rewinding and going on", "bfloat16"]
RESUMED = ["resumed adam", "resumed learned", "resumed sgd"]
ALL = {
    "diagnostics": [*DIAGNOSTICS, *scenarios.WAYS, *(f"mode {m}" for m in scenarios.MODES)],
    "masks": [*METHODS],
    "tweaks": [*TWEAKS, *(f"skips {kind}" for kind in SKIPS)],
    "records": [*RECORDS, *RESUMED],
    "steps": [*scenarios.STEPS],
}
STEPS_AN_EPOCH, EPOCHS = 10, 2


@cache
def _run(names: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.pretend", *names]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def seen(scenario: str) -> dict[str, Any]:
    """What a scenario met; those of one process are run together."""
    done = _run(next(names for names in PROCESSES if scenario in names))
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)[scenario]
    return found


@pytest.mark.parametrize("scenario", ALL)
def test_all_of_it_runs_on_the_device_without_a_mismatch(scenario: str) -> None:
    met = seen(scenario)
    assert met["mismatches"] == []
    assert [name for name in ALL[scenario] if name not in met["rows"]] == []
    assert [name for name, row in met["rows"].items() if not row["operations"]] == []


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_that_is_stopped_ends_with_the_same_files(name: str) -> None:
    assert seen("records")["rows"][name]["same"]


def inside(row: dict[str, Any], moves: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """What happened from each step to the next one of the same epoch.

    Args:
        row: Of the run, and of those that it stands on.
        moves: Steps in which the mask moves and the optimiser does nothing.
    """
    taken = [i for i in range(EPOCHS * STEPS_AN_EPOCH) if i not in moves]
    pairs = list(pairwise(taken))
    between = row["between"][-len(pairs) :]
    return [
        gap
        for gap, (one, two) in zip(between, pairs, strict=True)
        if two == one + 1 and two % STEPS_AN_EPOCH
    ]


@pytest.mark.parametrize("name", scenarios.STEPS)
def test_the_host_waits_for_nothing_in_a_step(name: str) -> None:
    row = seen("steps")["rows"][name]
    gaps = inside(row, moves=(4, 8, 12) if name == "RigL" else ())
    assert len(gaps) == {"RigL": 12}.get(name, 18)
    for gap in gaps:
        assert gap["waits"] == gap["copies"] == {}
        assert gap["operations"] > 50


def test_a_wait_in_each_step_is_found() -> None:
    gaps = inside(seen("planted")["rows"]["a wait in each step"])
    assert len(gaps) == 18
    for gap in gaps:
        ((place, count),) = gap["waits"].items()
        assert count == 1
        assert "_local_scalar_dense at tests/pretend/scenarios.py" in place


def test_every_mistake_is_found() -> None:
    met = seen("planted")
    mistakes = {name: row["found"] for name, row in met["rows"].items() if "mistake" in row}
    assert len(mistakes) == 12
    assert {name: found for name, found in mistakes.items() if not found} == {}
    for mistake, token in {
        "a sum of both devices": "add of cuda:0 (3,), cpu (3,)",
        "numpy": "can't convert cuda:0",
        "a host's generator": "rand: a generator on cpu draws for the GPU",
    }.items():
        assert token in mistakes[mistake]
        assert any(token in noted and "scenarios.py" in noted for noted in met["mismatches"])


def test_every_wait_is_counted_and_nothing_else() -> None:
    rows = seen("planted")["rows"]
    waits = {name: row["waits"] for name, row in rows.items() if name.startswith("wait: ")}
    assert set(waits.values()) == {1}, waits
    fine = {name: row["waits"] for name, row in rows.items() if name.startswith("fine: ")}
    assert set(fine.values()) == {0}, fine
    assert len(waits) > 10
