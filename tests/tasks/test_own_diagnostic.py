"""A diagnostic of one's own as a command: one file, which may be as short as this one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sparsediag import Checkpoint
from sparsediag.cli.app import main

GOLDEN = Path(__file__).parents[1] / "golden" / "checkpoint.pt"
OWN = '''\
from dataclasses import dataclass
import sparsediag as sd
from sparsediag.diagnostics.traits import diagnostic

@dataclass(frozen=True, kw_only=True, eq=False)
class Norms(sd.Result):
    norm: float

    def table(self):
        return [{"norm": f"{self.norm:.4g}"}]

@diagnostic()
def norms(problem, *, power=2.0):
    """size of the live weights"""
    return Norms(norm=float(problem.weights.norm(p=power)), source={"power": power})
'''


@pytest.mark.usefixtures("plugins_are_removed")
def test_an_own_diagnostic_is_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("norms.py").write_text(OWN)
    shutil.copy(GOLDEN, "ckpt.pt")
    assert main(["norms", "ckpt.pt", "--plugin", "norms.py", "--power", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    weights = Checkpoint.load(GOLDEN).problem(images=20).weights
    assert result["norm"] == pytest.approx(float(weights.norm(p=3)))
    assert result["files"] == ["ckpt-norms-power=3.0.npz"]  # it has no picture
    assert Path("ckpt-norms-power=3.0.npz").exists()
    assert not list(tmp_path.glob("*.png"))
    assert main(["--help", "--plugin=norms.py"]) == 0
    assert "size of the live weights" in capsys.readouterr().out
    assert main(["norms", "--help", "--plugin=norms.py"]) == 0
    assert "--power" in capsys.readouterr().out
