"""The suite itself: a crash of compiled code ends it with a failure, and not with a wait."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CRASH = "import os, signal\ndef test_crash():\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
FINE = "def test_fine():\n    pass\n"


def test_a_worker_that_crashes_ends_the_run_as_a_failure(tmp_path: Path) -> None:
    for name in "bcd":
        (tmp_path / f"test_{name}.py").write_text(FINE * 4)
    (tmp_path / "test_a.py").write_text(FINE + CRASH + FINE)
    options = ["-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "-n", "2", tmp_path]
    command = [sys.executable, "-m", "pytest", *map(str, options)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert ended.returncode == 1, ended.stdout
    assert "test_a.py::test_crash" in ended.stdout
    assert "crashed" in ended.stdout
