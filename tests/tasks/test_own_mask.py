"""A mask criterion of one's own, trained: one file of 12 lines, one command, nothing edited."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from sparsediag import Checkpoint
from sparsediag.cli.app import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text()
(OWN,) = re.findall(r"```python\n([^`]*\(Method\)[^`]*)```", PAGE)
(COMMAND,) = re.findall(r"^sparsediag (train .* --plugin mine.py)$", PAGE, re.MULTILINE)
SMALL = ["--model.name=lenet300", "--model.width=8", "--optim.epochs=1", "--tweaks=[]"]
SMALL += ["--optim.batch_size=390"]


@pytest.mark.usefixtures("plugins_are_removed")
def test_an_own_criterion_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len([line for line in OWN.splitlines() if line.strip()]) <= 12
    Path("mine.py").write_text(OWN)
    assert main([*COMMAND.split(), *SMALL]) == 0
    snip = COMMAND.replace("fisher", "snip")  # which sorts by |w g|
    assert main([*snip.split(), *SMALL]) == 0
    own, other = (Checkpoint.load(line) for line in capsys.readouterr().out.split())
    assert own.run["mask"]["method"] == "fisher"
    assert own.mask is not None
    assert other.mask is not None
    assert own.mask.density == pytest.approx(0.1, abs=0.01)
    for name, live in own.mask.items():
        assert torch.equal(live, other.mask[name])
        assert own.weights[name][~live].abs().sum() == 0
    assert main(["train", "--help"]) == 0
    assert "Keep the weights with the largest w² g²." in capsys.readouterr().out
