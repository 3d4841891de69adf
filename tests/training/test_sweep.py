"""A run file with lists is several runs: which, and what is refused."""

from pathlib import Path

import pytest

from sparsediag import ConfigError
from training.__main__ import main, parse_changes
from training.config import Run
from training.sweep import load_runs

Capture = pytest.CaptureFixture[str]

FILE = """
data = "digits"
seed = [0, 1]
tweaks = [[], ["trt"]]
model = {name = "lenet300", width = 4}
[mask]
method = ["dense", "random"]
density = [0.5, 0.2]
[optim]
epochs = 1
batch_size = 390
"""


@pytest.fixture
def sweep(tmp_path: Path) -> str:
    (tmp_path / "sweep.toml").write_text(FILE)
    return str(tmp_path / "sweep.toml")


def test_a_sweep_is_every_combination_and_a_dense_net_has_no_density(sweep: str) -> None:
    runs = load_runs(sweep)
    found = [(run.seed, "smoothing" in run.tweaks, run.mask.density) for run in runs]
    assert found == [
        (seed, tweaked, density)
        for seed in (0, 1)
        for tweaked in (False, True)
        for density in (1, 0.5, 0.2)
    ]
    one = {"seed": 1, "tweaks": ["trt"], "mask.method": "random", "mask.density": 0.2}
    assert runs[-1] == Run.load(sweep, one)


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (["--tweaks", "['tost']"], 1),
        (["--tweaks", "[['tost'], {smoothing = {alpha = 0.2}}]"], 2),
        (["--optim.lr_milestones", "[0.5]"], 1),
        (["--optim.lr_milestones", "[[], [0.5], [0.5, 0.75]]"], 3),
        (["--optim.drops", "[[], [0.5]]"], 2),
        (["--record.checkpoint_epochs", "[1, 2]"], 1),
        (["--data", "['digits', 'mnist']", "--optim.lr", "[0.1, 0.01]"], 4),
        (["--model.options", "{stages = [1, 2]}"], 1),
        (["--mask", "[{method = 'dense'}, {method = 'snip', density = [0.1, 0.2]}]"], 3),
        (["--tweaks.smoothing.alpha", "[0.1, 0.2]"], 2),
        (["--seed", "[1, 1]"], 1),
    ],
)
def test_a_list_is_several_values_unless_the_key_takes_one(words: list[str], number: int) -> None:
    assert len({run.id for run in load_runs("digits", parse_changes(words))}) == number


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tweaks", "[[], 'tost']"], r"tweaks = \[\[\], 'tost'\]: .* list of lists"),
        (["--tweaks", "['plain', 'tost']"], r"unknown tweak 'plain'.*\[\[\], \['tost'\]\]"),
        (["--optim.lr_milestones", "[0.5, [0.7]]"], "optim.lr_milestones = .* mixes"),
        (["--seed", "[]"], r"seed = \[\]: need one value or more"),
        (["--sed", "[1, 2]"], "unknown key 'sed'; did you mean 'seed'"),
        (["--mask.density", "[0.1, 1.5]"], r"^mask.density = 1.5: mask.density 1.5: need a number"),
        (["--mask.method", "['random', 'snip']", "--mask.scope", "layer"], "^mask.method = 'snip'"),
        (["--tweaks", "[[], ['tost']]", "--tweaks.rescale.steps", "2"], "'tweaks' .* is a list"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_runs("digits", parse_changes(words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "2"], "--seeds 2: the run file lists seeds"),
        (["--engine", "slurm"], "unknown engine 'slurm'"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    words: list[str], message: str, sweep: str, tmp_path: Path, capsys: Capture
) -> None:
    assert main([sweep, "--out", str(tmp_path / "out"), *words]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_failure_is_told_and_the_others_continue(
    sweep: str, tmp_path: Path, capsys: Capture
) -> None:
    """With masks of trained dense nets: 2 dense ones, 2 masks that fit, 2 that empty the net."""
    words = [sweep, "--tweaks", "[]", "--mask.method", "magnitude", "--mask.density", "[0.001,0.5]"]
    words += ["--out", str(tmp_path), "--device", "cpu"]
    assert main(words) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert lines[0] == "4 runs; 0 of 6 trainings are finished"
    assert sum("to train" in line for line in lines) == 6
    assert [line for line in lines if line.endswith(": failed")]
    assert [line for line in lines[7:] if "min left" in line]
    assert sum("no path is left from the input" in line for line in lines) == 2
    assert [Run.load(Path(path).parent / "run.toml").mask.density for path in out.splitlines()] == [
        0.5, 0.5,
    ]  # fmt: skip

    assert main(words) == 2
    again = capsys.readouterr().err.splitlines()
    assert again[0].startswith("4 runs; 4 of 6 trainings are finished, about 0.0 min left")
    assert sum(line.split()[0] == "finished" for line in again) == 4
