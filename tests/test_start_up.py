"""What a command imports before it answers: no more than it needs, so that nobody waits for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.diagnostics import DIAGNOSTICS
from sparsediag.models import build

HEAVY = ("torch", "numpy", "scipy", "matplotlib", "sklearn", "sympy", "torchvision", "pandas")
HEAVY += ("torch._dynamo", "torch._inductor", "plotly", "transformers")
CODE = """
import contextlib, io, json, sys
from sparsediag.cli.app import main
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        assert main(words) == 0, words
    assert text.getvalue(), words
print(json.dumps([name for name in json.loads(sys.argv[2]) if name in sys.modules]))
"""


def imported(*commands: list[str]) -> set[str]:
    """The heavy modules that a new process has imported after these commands."""
    words = [sys.executable, "-c", CODE, json.dumps(commands), json.dumps(HEAVY)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=300)
    return set(json.loads(done.stdout))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network on the digits."""
    about = {"model": "lenet300", "options": {"size": 8, "width": 4}, "data": "digits"}
    net = build("lenet300", size=8, width=4)
    file = tmp_path_factory.mktemp("net") / "net.pt"
    Checkpoint.of(net, **about).save(file)
    return file


def test_help_needs_no_library_but_numpy() -> None:
    commands = [*DIAGNOSTICS, "info", "join", "report", "runs", "watch"]
    assert imported(["--help"], *([name, "--help"] for name in commands)) <= {"numpy"}


def test_info_needs_torch_only(checkpoint: Path) -> None:
    assert imported(["info", str(checkpoint)]) == {"torch", "numpy"}


def test_a_small_diagnostic_draws_with_matplotlib_and_needs_no_more(checkpoint: Path) -> None:
    words = [str(checkpoint), "--images", "20", "--quiet"]
    found = imported(["activations", *words], ["spectrum", *words, "--top", "1"])
    assert found == {"torch", "numpy", "matplotlib", "sympy"}  # sympy by torch.autograd.grad
