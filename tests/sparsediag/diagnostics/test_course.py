"""Activations, gradient flow and signal through the checkpoints of short trainings."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsediag import Checkpoint, Result, activations, gradflow
from sparsediag.cli.app import main
from sparsediag.diagnostics.course import Course, course, history_of
from sparsediag.diagnostics.signal import signal
from training.config import Run
from training.loop import fit

LOAD = partial(Checkpoint.problem, images=60, device="cpu")
NAMES = ["activations", "gradflow", "signal"]
FILES = ["epoch-001.pt", "epoch-002.pt", "last.pt"]
every = pytest.mark.parametrize("name", NAMES)


def train(out: Path, mask: dict[str, Any]) -> Path:
    """The folder of three epochs on digits."""
    table = {
        "data": "digits",
        "model": {"name": "lenet300", "width": 8},
        "mask": {"density": 0.3, **mask},
        "optim": {"epochs": 3, "batch_size": 128},
        "record": {"checkpoint_epochs": [1, 2]},
    }
    folder = fit(Run.of(table), out=out, device="cpu").parent
    (folder / "best.pt").unlink()
    return folder


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mask = {"method": "rigl", "update_interval": 4, "end": 0.6}  # of 36 steps
    return train(tmp_path_factory.mktemp("moving"), mask)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("fixed"), {"method": "random"})


@pytest.fixture(scope="module")
def found(moving: Path) -> dict[str, Course]:
    return {name: course(moving, name, load=LOAD) for name in NAMES}


@every
def test_the_values_are_those_of_each_checkpoint(
    moving: Path, found: dict[str, Course], name: str
) -> None:
    c = found[name]
    assert (c.diagnostic, c.files, c.epochs.tolist()) == (name, FILES, [1, 2, 3])
    assert c.measures == list(history_of(name).fields)
    assert c.values.shape == (len(c.measures), 3, len(c.names))
    before = None
    for i, file in enumerate(FILES):
        problem = LOAD(Checkpoint.load(moving / file))
        alone: Any = {
            "activations": lambda p: activations(p),
            "gradflow": lambda p, b=before: gradflow(p, previous_mask=b),
            "signal": lambda p: signal(p),
        }[name](problem)
        before = problem.mask
        assert alone.names == c.names
        for measure in c.measures:
            np.testing.assert_array_equal(c.of(measure)[i], getattr(alone, measure))


def test_what_has_regrown_is_seen_where_the_mask_moves(
    fixed: Path, moving: Path, found: dict[str, Course]
) -> None:
    one, two = (Checkpoint.load(moving / file).mask for file in FILES[:2])
    assert one is not None
    assert two is not None
    born = [int((two[name] & ~one[name]).sum()) for name in one]
    regrown = found["gradflow"].of("regrown_per_weight")
    assert np.isnan(regrown[0]).all()
    assert min(born) > 0
    assert (regrown[1] > 0).all()
    assert "per regrown" in found["gradflow"].table()[0]
    still = course(fixed, "gradflow", load=LOAD)
    assert np.isnan(still.of("regrown_per_weight")).all()
    assert not still.of("regrown_flow").any()
    assert "per regrown" not in still.table()[0]


def test_options_are_those_of_the_diagnostic(fixed: Path) -> None:
    c = course(fixed, "activations", load=LOAD, modules="layers.0*", threshold=0.5)
    problem = LOAD(Checkpoint.load(fixed / "last.pt"))
    alone = activations(problem, modules="layers.0*", threshold=0.5)
    assert c.names == alone.names
    assert c.of("small")[-1].tolist() == alone.small.tolist()
    assert c.source["options"] == {"modules": "layers.0*", "threshold": 0.5}


@every
def test_the_table_has_the_means_over_layers(found: dict[str, Course], name: str) -> None:
    c = found[name]
    rows = c.table()
    assert [row["checkpoint"] for row in rows] == FILES
    assert {tuple(row) for row in rows} == {tuple(rows[0])}
    first = c.measures[0]
    shown = [row[history_of(name).fields[first]] for row in rows]
    assert shown == [f"{mean:.4g}" for mean in c.of(first).mean(1)]


@every
def test_the_picture_is_a_map_and_lines(found: dict[str, Course], name: str) -> None:
    c = found[name]
    ax = c.plot()
    (drawn,) = ax.collections
    np.testing.assert_array_equal(np.asarray(drawn.get_array()), c.values[0].T)
    assert len(ax.get_yticklabels()) == len(c.names)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "3"]
    assert ax.yaxis_inverted()
    above = ax.figure.axes[0]
    assert above is not ax
    line = above.get_lines()[0]
    assert line.get_xdata().tolist() == [1, 2, 3]
    assert line.get_ydata() == pytest.approx(c.values[0].mean(1))


def test_a_map_of_another_measure_on_given_axes(found: dict[str, Course]) -> None:
    from sparsediag.plotting import style

    ax = style.new_axes()
    c = found["gradflow"]
    assert c.plot(ax, measure="regrown_per_weight") is ax
    (drawn,) = ax.collections
    assert np.ma.getmaskarray(drawn.get_array())[:, 0].all()
    with pytest.raises(ValueError, match="unknown measure 'zeros'"):
        c.plot(measure="zeros")


@every
def test_a_file_gives_the_same_back(found: dict[str, Course], name: str, tmp_path: Path) -> None:
    back = Result.load(found[name].save(tmp_path / "x.npz"))
    assert isinstance(back, Course)
    for field in dataclasses.fields(Course):
        one, other = getattr(found[name], field.name), getattr(back, field.name)
        np.testing.assert_array_equal(one, other)
    json.dumps(back.json(), allow_nan=False)


def test_a_command_for_a_folder(
    moving: Path, found: dict[str, Course], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gradflow", str(moving), "--images", "60", "--device", "cpu"]) == 0
    assert "per regrown" in capsys.readouterr().out
    back = Course.load(moving / "gradflow-images=60.npz")
    np.testing.assert_array_equal(back.values, found["gradflow"].values)
    assert (moving / "gradflow-images=60.png").exists()


def test_a_command_with_an_earlier_checkpoint(moving: Path, tmp_path: Path) -> None:
    one, two = (str(moving / file) for file in FILES[:2])
    out = tmp_path / "flow.npz"
    words = ["gradflow", two, "--previous-mask", one, "--images", "60", "--device", "cpu"]
    assert main([*words, "--out", str(out)]) == 0
    before = Checkpoint.load(moving / FILES[0]).mask
    alone = gradflow(LOAD(Checkpoint.load(moving / FILES[1])), previous_mask=before)
    assert alone.regrown_counts.sum() > 0
    assert Result.load(out).json() == alone.json()


def test_progress_counts_the_checkpoints(fixed: Path) -> None:
    seen: list[tuple[int, int]] = []
    course(fixed, "signal", load=LOAD, progress=lambda *now: seen.append(now))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "gradflow {run} --previous-mask {run}/last.pt",
            "leave out previous_mask",
        ),
        ("gradflow {run}/last.pt --previous-mask nowhere.pt", "nowhere.pt: no such file"),
        ("activations {run} --threshold -1", "threshold=-1.0, relative=0.01: need 0 or more"),
        ("activations {run} --modules xy", "unknown module 'xy'"),
        ("signal {run} {run}", "takes one checkpoint; leave out"),
        ("signal {run}/nowhere", "no such file"),
    ],
)
def test_what_cannot_be_asked(
    fixed: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    before = sorted(fixed.iterdir())
    assert main(words.format(run=fixed).split()) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert sorted(fixed.iterdir()) == before


def test_an_unknown_diagnostic(fixed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown diagnostic of a run 'trace'"):
        course(fixed, "trace", load=LOAD)
    with pytest.raises(ValueError, match="holds no checkpoint"):
        course(tmp_path, "signal", load=LOAD)


def test_a_folder_of_others_has_a_row_for_each_file(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        net = torch.nn.Linear(2, 2)
        torch.nn.init.constant_(net.weight, float(epoch))
        torch.save(net.state_dict(), tmp_path / f"epoch-{epoch}.pt")
    batches = [(torch.ones(2, 2), torch.tensor([0, 1]))]
    load: Any = partial(
        Checkpoint.problem, model=lambda: torch.nn.Linear(2, 2), data=batches, device="cpu"
    )
    c = course(tmp_path, "gradflow", load=load)
    assert c.epochs.tolist() == [1, 2, 3]
    assert c.of("weight_norm")[:, 0] == pytest.approx([2, 4, 6])
