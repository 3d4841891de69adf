"""The README's commands and code do what they say."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from figures import findings, items
from sparsediag.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_python_block_runs(tmp_path: Path) -> None:
    code = "\n".join(blocks("python"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("True")
    assert (tmp_path / "landscape.png").stat().st_size > 5000


def test_shell_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two commands in a shell, the others here: each would load torch again."""
    activate, train, info, *lines = "".join(blocks("bash")).splitlines()
    assert activate == ". .venv/bin/activate"
    bin_folder = Path(sys.executable).parent
    assert shutil.which("sparsediag", path=str(bin_folder))
    few = "training digits --optim.epochs 2 --tweaks.rescale.steps 2"
    train = train.replace("training digits", few)
    script = "\n".join(["set -eo pipefail", train, info, 'echo "$CKPT"'])
    environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    checkpoint = done.stdout.splitlines()[-1]
    monkeypatch.chdir(tmp_path)
    for line in lines:
        line = line.replace("--density", "--density --probes 2 --steps 10")
        name, *words = shlex.split(line.replace("$CKPT", checkpoint))
        assert name == "sparsediag"
        assert main([*words, "--images", "100"]) == 0
    folder = next(tmp_path.glob("out/runs/*magnitude*"))
    for name in (
        "best-landscape.npz",
        "best-landscape.html",
        "best-spectrum.png",
        "best-blocks.png",
    ):
        assert (folder / name).exists()


def test_run_file_is_accepted(tmp_path: Path) -> None:
    from training.config import Run

    (text,) = blocks("toml")
    (tmp_path / "run.toml").write_text(text)
    run = Run.load(tmp_path / "run.toml")
    assert run.mask.density == 0.05
    assert list(run.tweaks) == ["ghost_neurons", "ghost_skips", "rescale", "smoothing"]


def test_make_targets_named_here_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(
        re.findall(r"\bmake ([a-z]+)", README + (ROOT / "CONTRIBUTING.md").read_text())
    ):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        assert re.search(rf"^\.PHONY:.*\b{target}\b", makefile, re.MULTILINE), target


def test_pictures_named_here_exist() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / path).exists(), path


def test_claims_here_are_those_that_were_measured() -> None:
    found = json.loads((findings.MEASURED / "laptop.json").read_text())
    claims = [(name, claim.says) for name in items.names() for claim in items.item(name).CLAIMS]
    assert [(row["item"], row["says"]) for row in found["claims"]] == claims
    assert findings.markdown(found) in README
    assert findings.tally(found["claims"]) in README
