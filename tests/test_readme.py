"""The code, commands, options and links in README.md and docs/*.md work."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsediag.cli.app import app, main
from sparsediag.diagnostics import DIAGNOSTICS
from training import keys
from training.__main__ import USAGE, parse_changes
from training.config import Run
from training.sweep import load_runs

ROOT = Path(__file__).parent.parent
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
SMALL = "digits --model.name resnet6 --model.width 4 --optim.epochs 2 --tweaks.rescale.steps 2"
SMALL += " --record.checkpoint_epochs [1]"
FASTER = {
    "--density": "--density --num-probes 2 --lanczos-steps 10",
    "report": "report --points 5",
    "trace": "trace --tol 0.5",
}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of each block of code."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the README's network, but smaller, by the README's command in a shell."""
    train = dict(reversed(blocks(README)))["bash"].splitlines()[0]
    train = train.replace("training digits", f"training {SMALL}")
    bin_folder, out = Path(sys.executable).parent, tmp_path_factory.mktemp("readme")
    assert (bin_folder / "sparsediag").exists()
    done = subprocess.run(
        ["bash", "-c", f'set -eo pipefail\n{train}\necho "$CKPT"'],
        cwd=out,
        env=os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return (out / done.stdout.strip()).parent


@cache
def run_command(line: str) -> None:
    """Run a command on the checkpoint `best.pt`, on fewer samples; once if pages repeat it."""
    for word, faster in FASTER.items():
        line = line.replace(word, faster, 1)
    name, *words = shlex.split(line.replace("$(dirname $CKPT)", ".").replace("$CKPT", "best.pt"))
    assert name == "sparsediag"
    assert main([*words, *([] if words[0] in ("info", "watch") else ["--images", "100"])]) == 0
    for file in Path().glob("*-images=100*"):  # under its name without --images
        shutil.copy(file, file.name.replace("-images=100", ""))


def load_line(line: str) -> list[Run]:
    """Return the runs of a command `python -m training RUN --KEY VALUE ...`, without training."""
    name, *words = shlex.split(line, comments=True)[3:]
    options = dict(zip(words[::2], words[1::2], strict=True))
    for flag in ("--seeds", "--jobs", "--device"):
        options.pop(flag, None)
    return load_runs(name, parse_changes([f"{key}={value}" for key, value in options.items()]))


@each_page
def test_code_runs(
    page: Path,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Run the blocks one after the other, in the folder of a training."""
    monkeypatch.chdir(run_folder)
    session: dict[str, Any] = {}
    for language, text in blocks(page):
        if name := re.match(r"# (\w+\.py)\n", text):
            Path(name[1]).write_text(text)
            exec(text, session)
            torch.save(session["make"]().state_dict(), "weights.pt")
        elif language == "python":
            exec(compile(text, page.name, "exec"), session)
        elif language == "toml":
            name = "sweep.toml" if text.startswith("# sweep.toml") else "run.toml"
            Path(name).write_text(text)
            assert list(load_runs(name)[-1].tweaks)[-1] == "smoothing"
        for line in text.splitlines():
            if language == "bash" and not line.startswith("CKPT="):
                run_command(line)
            elif line.startswith("sparsediag spectrum weights.pt --model net.py:make"):
                assert main(shlex.split(line)[1:]) == 0
            elif line.startswith("python -m training"):
                assert load_line(line)
    output = capsys.readouterr().out
    assert not re.search("doubt:|finding:|NOT converged|one checkpoint", output)
    written = " ".join(re.findall(r"^wrote (.*)$", output, re.MULTILINE)).split()
    assert all(Path(file).stat().st_size > 500 for file in written)
    if page == README:
        assert "True" in output  # the eigenvalues have converged
        names = {Path(file).name for file in written}
        assert {"best-spectrum-images=100-top=3.png", "report.html"} <= names
        assert any(name.startswith("best-landscape") and name.endswith(".html") for name in names)
        assert Path("landscape.png").stat().st_size > 5000


@pytest.mark.parametrize("page", [*PAGES, CONTRIBUTING], ids=lambda page: page.stem)
def test_names_exist(page: Path) -> None:
    """Check the links, the targets of make and the options that a page names."""
    text = page.read_text()
    for target, anchor in re.findall(r"\]\(([^)#:]*)#?([^)]*)\)", text):
        file = page.parent / target if target else page
        assert file.exists(), target
        titles = re.findall(r"^#+ (.*)$", file.read_text() if anchor else "", re.MULTILINE)
        slugs = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
        assert not anchor or anchor in slugs, f"{target}#{anchor}"
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z]+)|^make ([a-z]+)", text, re.MULTILINE):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target
        assert re.search(rf"^\.PHONY:.*\b{''.join(target)}\b", makefile, re.MULTILINE), target
    text = re.sub(r"^python -m training .*$", "", text, flags=re.MULTILINE)  # see `load_line`
    for flag in re.findall(r"(?<![\w-])--[a-z][a-z1-9-]+(?![\w.-])", text):
        assert flag in OPTIONS or page == CONTRIBUTING, flag


OPTIONS = {
    name
    for command in (*DIAGNOSTICS, "info", "join", "report", "runs", "watch")
    for argument in app[command].assemble_argument_collection()
    for name in argument.names
} | set(
    re.findall(r"--[a-z-]+", "--help " + USAGE + (ROOT / "figures" / "__main__.py").read_text())
)


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 250


def test_the_makefile_installs_what_a_target_needs(tmp_path: Path) -> None:
    for file in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)

    def installs(target: str) -> list[str]:
        done = subprocess.run(
            ["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return re.findall(r"pip install .* -e '(.*)'", done.stdout)

    assert [installs(target) for target in ("figures", "test", "lint")] == [
        ["."], [".[test]"], [".[dev]"],
    ]  # fmt: skip
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("bin/pip", "bin/python"):  # as if the largest set was installed
        (tmp_path / ".venv" / name).symlink_to("/bin/true")
    command = ["make", ".venv/installed-dev"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert [installs(target) for target in ("figures", "test", "lint")] == [[], [], []]


def test_the_page_on_run_files_is_what_the_docstrings_say() -> None:
    """`python -m training.keys > docs/run-files.md` writes it anew."""
    assert (ROOT / "docs" / "run-files.md").read_text() == f"{keys.markdown()}\n"
