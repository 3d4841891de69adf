"""`python -m training`: the path of a checkpoint, or one line that says what was wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch

from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.checkpoint.run_folder import summarise
from sparsediag.core.workers import num_cores
from sparsediag.data.datasets import DATASETS
from sparsediag.models import MODELS
from training.__main__ import main, parse_changes
from training.config import RECIPES, Run
from training.keys import groups_of_keys
from training.loop import Training
from training.masks import METHODS
from training.metrics import COSTS, HISTORY, Row
from training.plugins import load_plugins
from training.progress import fit_with_progress
from training.tweaks import TWEAKS

TINY = """
data = "digits"
model = {name = "lenet300", width = 16}
optim = {epochs = 2, batch_size = 390}
"""

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return str(path)


def _main(*words: str, out: Path) -> int:
    return main([*words, "--out", str(out), "--device", "cpu"])


def test_help_names_everything_that_can_be_named(capsys: Capture) -> None:
    assert main(["--help"]) == main(["digits", "-h"]) == 0
    text = capsys.readouterr().out
    recipes = [path.stem for path in RECIPES.glob("*.toml")]
    for name in (*recipes, *METHODS, *TWEAKS, *MODELS, *DATASETS, "folder:PATH"):
        assert name in text
    keys = {key.name: key for group in groups_of_keys().values() for key in group}
    assert all(f"  {name}" in text for name in (*keys, *HISTORY, *COSTS))
    assert "  record.eigenvalue_every = 0\n      Measure the top Hessian eigenvalue after" in text
    assert max(map(len, text.splitlines())) <= 79


def test_without_a_run_there_is_help_and_an_error_code(capsys: Capture) -> None:
    assert main([]) == 2
    assert "python -m training RUN" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("--seed 3", {"seed": 3}),
        ("--optim.lr 0.05 --data=mnist", {"optim.lr": 0.05, "data": "mnist"}),
        ("--optim.lr 1e-3", {"optim.lr": 1e-3}),
        ("--optim.weight_decay -1", {"optim.weight_decay": -1}),
        ("--optim.lr_milestones [0.3,0.6]", {"optim.lr_milestones": [0.3, 0.6]}),
        ("--record.gradient_flow true", {"record.gradient_flow": True}),
        ("--tweaks ['smoothing']", {"tweaks": ["smoothing"]}),
        ("--data=folder:/a=b", {"data": "folder:/a=b"}),
    ],
)
def test_flags_are_dotted_keys_and_toml_values(words: str, found: dict[str, object]) -> None:
    assert parse_changes(words.split()) == found


def test_the_last_line_on_stdout_is_the_checkpoint(tmp_path: Path) -> None:
    """Of the installed command, in a folder where `python -m training` finds other code."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("raise RuntimeError('not this one')")
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    mask = ["--mask.method", "magnitude", "--mask.density", "0.5"]
    words = [path, *mask, "--out", tmp_path / "out", "--device", "cpu", "--seed", "3"]
    done = subprocess.run(
        [Path(sys.executable).with_name("sparsediag"), "train", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    run = Run.of(Checkpoint.load(line).run)
    assert Path(line) == tmp_path / "out" / "runs" / run.id / "best.pt"
    assert (run.seed, run.mask.density, run.optim.epochs) == (3, 0.5, 2)
    assert re.findall(r"^epoch +(\d)", done.stderr, re.MULTILINE) == ["1", "2"] * 2
    lines = done.stderr.splitlines()
    assert lines[0] == "Training 1 of 2: lenet300 digits dense seed 3, needed by the next one"
    assert lines[4] == "Training 2 of 2: lenet300 digits magnitude density 0.5 seed 3"
    accuracy = summarise(Path(line).parent)["test_accuracy"]
    assert lines[-1].startswith(f"test accuracy {accuracy:.1%} (epoch ")
    assert all(len(text) <= 79 for text in lines)


def test_the_runs_that_a_mask_needs_are_shown_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Run] = []
    monkeypatch.setattr("training.progress.fit", lambda run, **_: runs.append(run))
    monkeypatch.setattr("training.progress.outcome_line", str)
    monkeypatch.setattr("training.progress.summarise", str)
    run = Run.load("digits")
    assert fit_with_progress(run, out=tmp_path) == tmp_path / "runs" / run.id / "best.pt"
    assert runs == [run.plain(), run]


def test_lines_by_time_tell_the_step_of_a_tweak_and_of_an_epoch(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("sparsediag.plotting.terminal.SECONDS_A_LINE", 0.01)
    words = ["--optim.batch_size=16", "--tweaks={rescale={steps=20,limit=0}}"]
    assert _main(tiny, *words, out=tmp_path) == 0
    lines = capsys.readouterr().err
    assert re.search(r"^rescale, step \d+ of 20: 0 of 2 done,", lines, re.MULTILINE)
    assert re.search(r"^epoch 1, step \d+ of 74: 0 of 2 done,", lines, re.MULTILINE)
    assert re.search(r"^epoch 2, step \d+ of 74: 1 of 2 done,", lines, re.MULTILINE)


def test_a_recipe_is_run_by_its_name_and_quietly(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparsediag.plotting.terminal.SECONDS_A_LINE", 0.001)
    small = {"model.width": 4, "optim.epochs": 1, "optim.batch_size": 390, "mask.density": 0.3}
    small |= {"tweaks.rescale.steps": 2}
    words = [f"--{key}={value}" for key, value in small.items()]
    assert _main("digits", *words, "--quiet", out=tmp_path) == 0
    out, err = capsys.readouterr()
    assert err.startswith("test accuracy")
    assert len(err.splitlines()) == 1
    checkpoint = Checkpoint.load(out.splitlines()[-1])
    assert Run.of(checkpoint.run) == Run.load("digits", small)
    assert checkpoint.mask is not None
    assert checkpoint.mask.density == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optm.lr", "1"], "unknown key 'optm'; did you mean 'optim'?"),
        (["--optim.lrr", "1"], "unknown key 'optim.lrr'; did you mean 'optim.lr'?"),
        (["--mask.method", "randm"], "did you mean 'random'?"),
        (["--mask.density", "1.5"], "density 1.5: need a number in (0, 1]"),
        (["--tweaks", "['smothing']"], "unknown tweak 'smothing'; did you mean 'smoothing'?"),
        (["--seed", "three"], "seed = 'three': need a whole number"),
        (["--seed"], "--seed needs a value"),
        (["stray"], "'stray': need --KEY VALUE"),
        (["--data.name", "mnist"], "'data' in 'data.name' is a value, not a table"),
        (["--data", "digit"], "unknown data set 'digit'; did you mean 'digits'?"),
        (["--model.name", "lenet"], "unknown model 'lenet'; did you mean 'lenet300'?"),
        (["--model.options.depth", "3"], "unknown option of lenet300 'depth'"),
        (["--seeds", "0"], "--seeds 0 --jobs 1: need 1 or more"),
        (["--jobs", "0"], "--seeds 1 --jobs 0: need 1 or more"),
        (["--device", "tpu"], "device 'tpu': need auto, cpu, cuda or cuda:N"),
        (["--mask.density", "0.1"], "density 0.1 with method 'dense'; name a pruning method"),
    ],
)
def test_what_cannot_be_is_one_line_on_stderr(
    words: list[str], message: str, tiny: str, tmp_path: Path, capsys: Capture
) -> None:
    assert main([tiny, "--out", str(tmp_path / "out"), *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert message in shown.err
    assert not (tmp_path / "out").exists()


def test_a_missing_run_file_is_one_line_too(tmp_path: Path, capsys: Capture) -> None:
    assert _main("digts", out=tmp_path / "out") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_run_comes_first(tiny: str, capsys: Capture) -> None:
    assert main(["--seed", "3", tiny]) == 2
    assert capsys.readouterr().err.startswith("'--seed' came before the run; write the run file")


def test_a_divergence_ends_with_its_line(tiny: str, tmp_path: Path, capsys: Capture) -> None:
    assert _main(tiny, "--optim.lr", "1e20", out=tmp_path) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    said = "in epoch 1 from step 2 on, at learning rate 1e+20; lower optim.lr"
    assert said in shown.err.splitlines()[-1]


def test_debug_raises(tiny: str) -> None:
    with pytest.raises(ValueError, match="unknown key 'sed'"):
        main([tiny, "--sed", "3", "--debug"])


def test_an_interruption_says_how_to_go_on(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.progress.fit", stop)
    assert _main(tiny, out=tmp_path) == 130
    assert "same command again to resume" in capsys.readouterr().err.splitlines()[-1]


# again


def test_force_trains_again_and_keeps_what_was_there(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    every_epoch = "--optim.lr_milestones=[]"  # may be the best: it is saved
    assert _main(tiny, every_epoch, out=tmp_path) == 0
    best = Path(capsys.readouterr().out.strip())
    folder, before = best.parent, best.stat().st_mtime_ns
    (folder / "best-spectrum.npz").write_text("measured")
    files = {path.name for path in folder.iterdir()}
    train_epoch = Training.train_epoch

    def interrupt(training: Training, epoch: int) -> Row:
        if epoch == 1:
            raise KeyboardInterrupt
        return train_epoch(training, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "train_epoch", interrupt)
        assert _main(tiny, every_epoch, "--force", out=tmp_path) == 130
    assert {path.name for path in folder.iterdir()} == files
    assert best.stat().st_mtime_ns == before
    assert _main(tiny, every_epoch, out=tmp_path) == 0  # the one that is finished
    capsys.readouterr()
    assert _main(tiny, every_epoch, "--force", out=tmp_path) == 0
    shown = capsys.readouterr()
    assert "epoch   1" not in shown.err  # it was resumed
    assert "epoch   2" in shown.err
    assert Path(shown.out.strip()) == best
    assert {path.name for path in folder.iterdir()} == files - {"best-spectrum.npz"}
    (replaced,) = (tmp_path / "replaced").iterdir()
    assert {path.name for path in replaced.iterdir()} == files
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.toml", "runs", "replaced"}


def test_a_forced_training_that_fails_prints_no_checkpoint(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(*_: object) -> Row:
        raise ValueError("out of luck")

    assert _main(tiny, out=tmp_path) == 0
    path = Path(capsys.readouterr().out.strip())
    monkeypatch.setattr(Training, "train_epoch", fail)
    assert _main(tiny, "--force", out=tmp_path) == 2
    shown = capsys.readouterr()
    assert (shown.out, "out of luck" in shown.err) == ("", True)
    assert path.exists()


# several runs


@pytest.mark.usefixtures("plugins_are_removed")
def test_seeds_side_by_side_are_the_runs_one_by_one_but_for_one_that_fails(
    tiny: str, tmp_path: Path, capsys: Capture
) -> None:
    mask = tmp_path / "mask.py"  # which each process must load
    mask.write_text("from training.masks.magnitude import Magnitude\nclass Mine(Magnitude): pass\n")
    words = (tiny, "--seed", "3", "--seeds", "3", "--mask.method", "mine")
    words += ("--mask.density", "0.5", "--plugin", str(mask))
    load_plugins([str(mask)])
    run = Run.load(tiny, parse_changes([*words[1:3], *words[5:9]]))
    bad = replace(run, seed=4).id
    threads = torch.get_num_threads()
    found: list[list[Path]] = []
    for jobs in ("2", "1"):
        broken = tmp_path / jobs / "runs" / bad / "last.pt"
        broken.parent.mkdir(parents=True)
        broken.write_text("not a checkpoint")
        torch.set_num_threads(max(1, num_cores() // 2))  # as each of two has
        try:
            assert _main(*words, "--jobs", jobs, out=tmp_path / jobs) == 2
        finally:
            torch.set_num_threads(threads)
        shown = capsys.readouterr()
        assert f"{bad}: {broken}: not a torch checkpoint" in shown.err
        found.append([Path(line) for line in shown.out.splitlines()])
    assert [Checkpoint.load(path).run["seed"] for path in found[0]] == [3, 5]
    assert _main(*words, "--jobs", "1", "--json", out=tmp_path / "1") == 2
    outcome = json.loads(capsys.readouterr().out)
    assert [run["checkpoint"] for run in outcome["runs"]] == list(map(str, found[1]))
    tested = [run["test_accuracy"] for run in outcome["runs"]]
    (group,) = outcome["groups"]
    assert (group["test_accuracy"], group["deviation"]) == (mean(tested), stdev(tested))
    total = f"{mean(tested):.1%} ± {stdev(tested):.1%} (mean ± standard deviation of the seeds)"
    assert f"test accuracy {total}" in shown.err
    for side_by_side, alone in zip(*found, strict=True):
        assert side_by_side != alone
        assert side_by_side.read_bytes() == alone.read_bytes()
