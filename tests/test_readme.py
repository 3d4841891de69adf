"""The README's commands and code do what they say."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsediag.cli.app import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for of, text in found if of == language]


def test_python_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, as in a session; one of them is a file, for the command below it."""
    monkeypatch.chdir(tmp_path)
    session: dict[str, Any] = {}
    for code in blocks("python"):
        if name := re.match(r"# (\w+\.py)\n", code):
            (tmp_path / name[1]).write_text(code)
        else:
            exec(compile(code, "README.md", "exec"), session)
    converged, layers = capsys.readouterr().out.splitlines()
    assert converged.endswith("True")
    assert "'layer.self_attn'" in layers
    assert (tmp_path / "landscape.png").stat().st_size > 5000
    line = next(line for line in "".join(blocks("")).splitlines() if "net.py:make" in line)
    _, *words = shlex.split(line)
    net: dict[str, Any] = {}
    exec((tmp_path / "net.py").read_text(), net)
    torch.save(net["make"]().state_dict(), "weights.pt")
    assert main(words) == 0
    assert (tmp_path / "weights-spectrum.npz").exists()


def test_shell_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line in a shell, the others here: each would load torch again."""
    train, *lines = "".join(blocks("bash")).splitlines()
    small = "training digits --model.name resnet10 --model.width 2 --optim.epochs 2"
    small += " --tweaks.rescale.steps 2"
    train = train.replace("training digits", small)
    bin_folder = Path(sys.executable).parent
    assert shutil.which("sparsediag", path=str(bin_folder))
    script = "\n".join(["set -eo pipefail", train, 'echo "$CKPT"'])
    environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    checkpoint = Path(done.stdout.strip())
    monkeypatch.chdir(tmp_path)
    for line in lines:
        line = line.replace("--density", "--density --num-probes 2 --lanczos-steps 10")
        line = line.replace("report", "report --points 5", 1)
        line = line.replace("$(dirname $CKPT)", str(checkpoint.parent))
        name, *words = shlex.split(line.replace("$CKPT", str(checkpoint)))
        assert name == "sparsediag"
        few = [] if words[0] == "info" else ["--images", "100"]
        assert main([*words, *few]) == 0
    for name in (
        "best-landscape.npz",
        "best-landscape.html",
        "best-spectrum.png",
        "best-blocks.png",
        "signal.npz",
    ):
        assert (checkpoint.parent / name).exists()
    assert (tmp_path / "report.html").exists()


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
