"""Spectra along a short training: their order, their agreement, and what is kept on the way."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsediag import Checkpoint, Result, Spectrum, Trajectory, overlap, spectrum, trajectory
from sparsediag.checkpoint.run_folder import checkpoints, epochs
from training.config import Run
from training.loop import fit

LOAD = partial(Checkpoint.problem, images=60, device="cpu")
OPTIONS: dict[str, Any] = {"top": 2, "tol": 1e-3, "mode": "retained"}
FILES = ["epoch-001.pt", "epoch-002.pt", "best.pt"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of three epochs on digits: two checkpoints on the way, the best and the last."""
    table = {
        "data": "digits",
        "model": {"name": "lenet300", "width": 8},
        "mask": {"method": "random", "density": 0.3},
        "optim": {"epochs": 3, "batch_size": 128},
        "record": {"checkpoint_epochs": [1, 2]},
    }
    return fit(Run.of(table), out=tmp_path_factory.mktemp("run"), device="cpu").parent


@pytest.fixture(scope="module")
def found(run: Path) -> Trajectory:
    return trajectory(run, load=LOAD, **OPTIONS)


def _cold(run: Path, files: list[str], **options: Any) -> list[Spectrum]:
    return [spectrum(LOAD(Checkpoint.load(run / f)), **OPTIONS | options) for f in files]


def _same(one: Trajectory, other: Trajectory) -> None:
    for field in dataclasses.fields(Trajectory):
        here, there = getattr(one, field.name), getattr(other, field.name)
        if isinstance(here, np.ndarray):
            np.testing.assert_array_equal(here, there)
        else:
            assert here == there, field.name


def test_checkpoints_come_in_the_order_of_their_steps(run: Path, found: Trajectory) -> None:
    steps = [Checkpoint.load(run / file).step for file in found.files]
    assert len(steps) == len(set(steps)) == 3
    assert steps == sorted(steps)
    assert found.files[:2] == FILES[:2]
    assert found.files[2] in ("best.pt", "last.pt")
    assert found.epochs.tolist() == [1, 2, 3]
    digests = [LOAD(Checkpoint.load(run / file)).digest for file in found.files]
    assert found.problems == digests


def test_the_order_is_not_that_of_the_names(run: Path, tmp_path: Path) -> None:
    names = {"epoch-001.pt": "epoch-009.pt", "epoch-002.pt": "epoch-004.pt", "last.pt": "best.pt"}
    for here, there in names.items():
        shutil.copy(run / here, tmp_path / there)
    found = trajectory(tmp_path, load=LOAD, **OPTIONS)
    assert found.files == ["epoch-009.pt", "epoch-004.pt", "best.pt"]
    assert found.epochs.tolist() == [1, 2, 3]


def test_the_values_are_those_of_each_checkpoint_alone(run: Path, found: Trajectory) -> None:
    assert all(found.converged)
    alone = _cold(run, found.files, tol=1e-5)
    for i, s in enumerate(alone):
        np.testing.assert_allclose(found.eigenvalues[i], s.eigenvalues, rtol=2e-3)
        assert found.weight_norms[i] == pytest.approx(s.weight_norm)
    assert (found.residuals <= 1e-3).all()
    assert len({f"{v:.4g}" for v in found.eigenvalues[:, 0]}) == 3


def test_warm_starts_take_fewer_products(run: Path, found: Trajectory) -> None:
    cold = [s.products for s in _cold(run, found.files)]
    assert found.products[0] == cold[0]
    assert found.products.sum() < sum(cold)


def test_what_is_kept_is_the_least_overlap(run: Path, found: Trajectory) -> None:
    spectra = _cold(run, found.files)
    assert np.isnan(found.kept[0])
    for kept, one, other in zip(found.kept[1:], spectra[:-1], spectra[1:], strict=True):
        assert 0 <= kept <= 1
        assert kept == pytest.approx(overlap(one, other).min(), abs=0.02)


def test_the_records_of_the_training_are_there(run: Path, found: Trajectory) -> None:
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert found.rates.tolist() == [row["lr"] for row in rows]
    assert found.accuracies.tolist() == [row["val_accuracy"] for row in rows]


def test_the_picture_has_the_accuracy_on_a_second_axis(found: Trajectory) -> None:
    wide = found.eigenvalues * np.array([[1.0], [10.0], [100.0]])
    ax = dataclasses.replace(found, eigenvalues=wide).plot()
    (right,) = [other for other in ax.figure.axes if other is not ax]
    (line,) = right.get_lines()
    assert line.get_xdata().tolist() == [1, 2, 3]
    assert line.get_ydata().tolist() == pytest.approx((100 * found.accuracies).tolist())
    assert "accuracy" in right.get_ylabel()
    assert right.bbox.bounds == ax.bbox.bounds
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "Hessian eigenvalue")
    assert ax.get_yscale() == "log"
    (top,) = [drawn for drawn in ax.get_lines() if drawn.get_label() == "top eigenvalue"]
    assert top.get_xdata().tolist() == [1, 2, 3]
    assert top.get_ydata().tolist() == wide[:, 0].tolist()


def test_the_picture_marks_doubts_and_drops_of_the_rate(found: Trajectory) -> None:
    changed = dataclasses.replace(
        found, converged=[True, False, True], rates=np.array([0.1, 0.1, 0.01])
    )
    lines = changed.plot().get_lines()
    (hollow,) = [drawn for drawn in lines if drawn.get_markerfacecolor() == "white"]
    assert hollow.get_xdata().tolist() == [2]
    assert [drawn.get_xdata() for drawn in lines if drawn.get_linestyle() == ":"] == [[2.0, 2.0]]


def test_a_training_without_records_has_one_axis(found: Trajectory) -> None:
    bare = dataclasses.replace(found, rates=np.full(3, np.nan), accuracies=np.full(3, np.nan))
    ax = bare.plot()
    assert ax.figure.axes == [ax]


def test_the_table_has_a_row_for_each(found: Trajectory) -> None:
    rows = found.table()
    assert [row["checkpoint"] for row in rows] == found.files
    assert [row["kept"] for row in rows] == ["", *(f"{k:.2f}" for k in found.kept[1:])]
    assert {row["verdict"] for row in rows} == {"converged"}


def test_a_file_gives_the_same_trajectory_back(found: Trajectory, tmp_path: Path) -> None:
    back = Result.load(found.save(tmp_path / "spectrum.npz"))
    assert isinstance(back, Trajectory)
    _same(found, back)
    plain = json.loads(json.dumps(found.json(), allow_nan=False))
    assert plain["kept"][0] is None


def test_progress_counts_the_checkpoints(run: Path) -> None:
    seen: list[tuple[int, int]] = []
    trajectory(run, load=LOAD, progress=lambda *now: seen.append(now), **OPTIONS | {"tol": 0.5})
    assert seen == [(1, 3), (2, 3), (3, 3)]


# going on


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    calls: list[float] = []

    def counting(problem: Any, **options: Any) -> Spectrum:
        calls.append(float(problem.weights.norm()))
        return spectrum(problem, **options)

    monkeypatch.setattr("sparsediag.diagnostics.trajectory.spectrum", counting)
    return calls


def _interrupted(run: Path, file: Path, **options: Any) -> None:
    def stop(count: int, of: int) -> None:
        if count == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trajectory(run, load=LOAD, resume=file, progress=stop, **options)


def test_an_interrupted_call_goes_on(
    run: Path, found: Trajectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "unfinished.npz"
    _interrupted(run, file, **OPTIONS)
    assert Trajectory.load(file).files == found.files[:2]
    calls = _counted(monkeypatch)
    whole = trajectory(run, load=LOAD, resume=file, **OPTIONS)
    assert calls == pytest.approx(found.weight_norms[2:])
    assert whole.files == found.files
    np.testing.assert_array_equal(whole.eigenvalues[:2], found.eigenvalues[:2])
    np.testing.assert_allclose(whole.eigenvalues[2], found.eigenvalues[2], rtol=2e-3)
    assert Trajectory.load(file).files == found.files
    calls.clear()
    again = trajectory(run, load=LOAD, resume=file, **OPTIONS)
    assert calls == []
    _same(whole, again)


def test_what_has_changed_is_done_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "unfinished.npz"
    _interrupted(run, file, **OPTIONS)
    calls = _counted(monkeypatch)
    fewer: Callable[[Checkpoint], Any] = partial(Checkpoint.problem, images=30, device="cpu")
    trajectory(run, load=fewer, resume=file, **OPTIONS)
    assert len(calls) == 3


@pytest.mark.parametrize("other", [{"top": 1}, {"tol": 1e-2}, {"which": "magnitude"}])
def test_a_file_with_other_options_is_refused(
    run: Path, tmp_path: Path, other: dict[str, Any]
) -> None:
    file = tmp_path / "unfinished.npz"
    _interrupted(run, file, **OPTIONS)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="unfinished trajectory with other options; remove it"):
        trajectory(run, load=LOAD, resume=file, **OPTIONS | other)
    assert file.read_bytes() == before


# what is refused


def test_a_folder_without_checkpoints_is_refused(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").touch()
    with pytest.raises(ValueError, match="holds no checkpoint; give the folder that a training"):
        trajectory(tmp_path, load=LOAD)
    with pytest.raises(ValueError, match="holds no checkpoint"):
        checkpoints(tmp_path / "nowhere")


def test_a_density_is_refused(run: Path) -> None:
    with pytest.raises(ValueError, match="density needs one file"):
        trajectory(run, load=LOAD, density=True)


def test_wrong_options_are_those_of_the_spectrum(run: Path) -> None:
    with pytest.raises(ValueError, match="top=0: need 1 or more"):
        trajectory(run, load=LOAD, top=0)


def test_a_damaged_checkpoint_is_named(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "best.pt", tmp_path / "best.pt")
    torch.save({"format": 1}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt"):
        trajectory(tmp_path, load=LOAD, **OPTIONS)


# checkpoints of others


def _foreign(folder: Path, *names: str) -> list[str]:
    for i, name in enumerate(names):
        torch.save({"weight": torch.full((2, 3), i + 0.5)}, folder / name)
    return list(names)


def test_files_that_record_no_step_are_in_order_of_their_numbers(tmp_path: Path) -> None:
    _foreign(tmp_path, "epoch-10.pt", "epoch-2.pt", "epoch-003-best.pt")
    files = checkpoints(tmp_path)
    assert [file.name for file in files] == ["epoch-2.pt", "epoch-003-best.pt", "epoch-10.pt"]
    assert [epochs(file, Checkpoint.load(file)) for file in files] == [2, 3, 10]


def test_a_single_file_needs_no_number(tmp_path: Path) -> None:
    _foreign(tmp_path, "last.pt")
    assert checkpoints(tmp_path) == [tmp_path / "last.pt"]


@pytest.mark.parametrize(
    "names", [["epoch-1.pt", "last.pt"], ["epoch-1.pt", "epoch-01.pt"], ["epoch-a.pt", "best.pt"]]
)
def test_an_order_that_cannot_be_told_is_refused(tmp_path: Path, names: list[str]) -> None:
    _foreign(tmp_path, *names)
    with pytest.raises(ValueError, match=r"records no step, and its name has no number of its own"):
        checkpoints(tmp_path)


def test_numbers_are_not_compared_with_steps(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "last.pt", tmp_path / "last.pt")
    _foreign(tmp_path, "epoch-1.pt")
    with pytest.raises(ValueError, match=r"epoch-1\.pt records no step and others do"):
        checkpoints(tmp_path)
