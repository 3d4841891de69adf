"""The settings of the suite itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent

SEES = """
import os

import pytest


@pytest.mark.gpu
@pytest.mark.other
def test_what_is_visible() -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == os.environ["EXPECTED"]
"""


def test_no_gpu_is_visible_here() -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not torch.cuda.is_available()


@pytest.mark.parametrize(
    ("marks", "workers", "visible"), [("gpu", "1", "3"), ("gpu or other", "0", "")]
)
def test_gpus_are_hidden_unless_asked_for(
    marks: str, workers: str, visible: str, tmp_path: Path
) -> None:
    (tmp_path / "test_sees.py").write_text(SEES)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n    other\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-n", workers, "-m", marks]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "3"}
    done = subprocess.run(
        [*command, str(tmp_path)],
        env=environment | {"EXPECTED": visible},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
