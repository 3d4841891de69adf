"""The loop: what it writes, that a run is a function of its description, and that it goes on."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import training
from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.errors import CheckpointError
from sparsediag.core.problem import Problem
from sparsediag.data import datasets
from sparsediag.diagnostics.gradflow import gradflow
from sparsediag.diagnostics.spectrum import spectrum
from sparsediag.models import Ghost
from training import metrics
from training.config import Run
from training.loop import Diverged, fit
from training.metrics import Row, evaluate
from training.optim import Optim
from training.setup import finished

KEYS = ["epoch", "lr", "objective", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
KEYS += ["ghosts", "ghost_weights", "sparsity", "sparsity_all"]
COSTS = ["images_per_second", "seconds", "peak_memory_mb", "setup_seconds"]
MLP = {"model": {"name": "lenet300", "width": 16}}
RESNET = {"model": {"name": "resnet18", "width": 6}}
SPARSE = {"mask": {"method": "random", "density": 0.1}}
TOST = {"tweaks": ["ghost_neurons", "ghost_skips", "smoothing"]}
ALL = RESNET | TOST | {"mask": {"method": "magnitude", "density": 0.1}}
HALF = {"method": "magnitude", "density": 0.5}
WIDE = SPARSE | {"model": {"name": "resnet18", "width": 8}, "tweaks": ["ghost_skips"]}
ADAM = MLP | SPARSE | {"augment": "crop_flip", "optim": {"name": "adam", "lr": 0.01}}

KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from training import loop
from training.config import Run

torch.set_num_threads(1)
loop.SAVE_EVERY = 0
run, out, kills = Run.load(sys.argv[1]), Path(sys.argv[2]), 0
chance = random.Random(0)
while kills < 10:
    child = os.fork()
    if not child:
        loop.fit(run, out=out, device="cpu")
        os._exit(0)
    time.sleep(chance.uniform(0.1, 0.5))
    os.kill(child, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
        break  # it was done
    kills += 1
for folder in (out, Path(sys.argv[3])):
    loop.fit(run, out=folder, device="cpu")
print(kills)
"""


def _run(epochs: int = 3, **table: Any) -> Run:
    optim = {"epochs": epochs, "batch_size": 390} | table.pop("optim", {})
    return Run.of({"data": "digits"} | MLP | table | {"optim": optim})


def _fit(run: Run, out: Path, on_epoch: Callable[[Row], None] | None = None) -> Path:
    return fit(run, out=out, device="cpu", on_epoch=on_epoch).parent


def _history(folder: Path) -> list[Row]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def _measured(checkpoint: Checkpoint, split: str) -> tuple[float, float]:
    data = datasets.load("digits")
    return evaluate(checkpoint.build(), data, data.split(split))


def _bytes(path: Path) -> dict[str, bytes]:
    return {name: t.numpy().tobytes() for name, t in Checkpoint.load(path).weights.items()}


def _assert_same(one: Path, other: Path) -> None:
    for name in ("best.pt", "last.pt", "history.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def _stop_after(epoch: int) -> Callable[[Row], None]:
    def stop(row: Row) -> None:
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return stop


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save a checkpoint to go on from after every epoch."""
    monkeypatch.setattr("training.loop.SAVE_EVERY", 0)


# what is written


def test_the_files_of_a_run(tmp_path: Path) -> None:
    run = _run(record={"checkpoint_epochs": [1, 3]})
    assert not finished(tmp_path / "runs" / run.id)
    path = fit(run, out=tmp_path, device="cpu")
    assert path == tmp_path / "runs" / run.id / "best.pt"
    assert {file.name for file in path.parent.iterdir()} == {
        "best.pt",
        "finished",
        "last.pt",
        "costs.jsonl",
        "summary.json",
        "epoch-001.pt",
        "epoch-003.pt",
        "history.jsonl",
        "run.toml",
    }
    assert finished(path.parent)
    assert Run.load(path.parent / "run.toml") == run
    assert Run.of(Checkpoint.load(path).run) == run


def test_the_rows_of_the_history(tmp_path: Path) -> None:
    run = _run(epochs=4)
    shown: list[Row] = []
    rows = _history(_fit(run, tmp_path, lambda row: shown.append(dict(row))))
    tested = {"test_loss", "test_accuracy", "best"}
    assert [list(row) for row in shown] == [KEYS + COSTS] * 4
    plain = [{k: v for k, v in row.items() if k not in tested} for row in rows]
    assert plain == [{k: v for k, v in row.items() if k not in COSTS} for row in shown]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["lr"] for row in rows] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert all(row[cost] > 0 for row in shown for cost in COSTS[:3])
    assert [row["setup_seconds"] > 0 for row in shown] == [True, False, False, False]


@pytest.mark.parametrize("table", [MLP | SPARSE, ALL], ids=["mlp", "resnet"])
def test_every_checkpoint_rebuilds_the_net_that_was_measured(
    table: dict[str, Any], tmp_path: Path
) -> None:
    folder = _fit(_run(**table, record={"checkpoint_epochs": [1, 2]}), tmp_path)
    rows = _history(folder)
    (best,) = [row["epoch"] for row in rows if row.get("best")]
    epochs = {"epoch-001.pt": 1, "epoch-002.pt": 2, "best.pt": best, "last.pt": 3}
    for name, epoch in epochs.items():
        checkpoint, row = Checkpoint.load(folder / name), rows[epoch - 1]
        expected = pytest.approx((row["val_loss"], row["val_accuracy"]), rel=1e-5)
        assert _measured(checkpoint, "validation") == expected
        assert (checkpoint.step, checkpoint.steps, checkpoint.resume) == (epoch * 3, 9, None)
    for epoch, name in {best: "best.pt", 3: "last.pt"}.items():
        expected = (rows[epoch - 1]["test_loss"], rows[epoch - 1]["test_accuracy"])
        measured = _measured(Checkpoint.load(folder / name), "test")
        assert measured == pytest.approx(expected, rel=1e-5)
    assert {row["epoch"] for row in rows if "test_accuracy" in row} == {best, 3}
    assert Checkpoint.load(folder / "last.pt").history == rows
    assert Checkpoint.load(folder / "best.pt").history == rows


@pytest.mark.parametrize("table", [MLP, RESNET], ids=["mlp", "resnet"])
def test_sparsity_counts_zeros(table: dict[str, Any], tmp_path: Path) -> None:
    folder = _fit(_run(**table, **SPARSE), tmp_path)
    checkpoint = Checkpoint.load(folder / "last.pt")
    assert checkpoint.mask is not None
    net, size, alive = checkpoint.build(), checkpoint.mask.size, checkpoint.mask.alive
    weights = list(net.parameters())
    zeros, every = sum(int((p == 0).sum()) for p in weights), sum(p.numel() for p in weights)
    rows = _history(folder)
    assert [row["sparsity"] for row in rows] == pytest.approx([(size - alive) / size] * 3)
    assert rows[-1]["sparsity_all"] == pytest.approx(zeros / every, rel=1e-12)
    assert zeros / every < rows[-1]["sparsity"]
    assert alive == round(0.1 * size)


@pytest.mark.parametrize("mask", [SPARSE, {}], ids=["sparse", "dense"])
def test_the_flow_of_a_step_is_that_of_the_diagnostic(
    mask: dict[str, Any], tmp_path: Path, starts: list[dict[str, Tensor]]
) -> None:
    data = datasets.load("digits")
    optim = {"batch_size": len(data.train)}
    folder = _fit(_run(1, **RESNET, **mask, optim=optim, record={"gradient_flow": True}), tmp_path)
    last = Checkpoint.load(folder / "last.pt")
    net = last.build()
    net.load_state_dict(starts[-1])
    everything = data.batches("train", images=len(data.train), batch=len(data.train))
    flow = gradflow(Problem(net, everything, mask=last.mask, batch_norm="train"))
    (row,) = _history(folder)
    assert row["training_flow"] == pytest.approx(flow.mean, rel=1e-4)
    assert row["training_flow_per_weight"] == pytest.approx(flow.mean_per_weight, rel=1e-4)


def test_gradient_flow_is_that_of_the_diagnostic_and_changes_no_weight(tmp_path: Path) -> None:
    sparse, record = RESNET | SPARSE, {"gradient_flow": True, "probe_samples": 20}
    plain, folder = (_fit(_run(**t), tmp_path) for t in (sparse, sparse | {"record": record}))
    assert plain != folder
    assert _bytes(plain / "last.pt") == _bytes(folder / "last.pt")
    last, probe = Checkpoint.load(folder / "last.pt"), datasets.load("digits").batches(images=20)
    flow = gradflow(Problem(last.build(), probe, mask=last.mask, batch_norm="train"))
    row = _history(folder)[-1]
    assert row["gradient_flow"] == pytest.approx(flow.mean, rel=1e-4)
    assert row["gradient_flow_per_weight"] == pytest.approx(flow.mean_per_weight, rel=1e-4)


def test_eigenvalues_are_those_of_the_diagnostic(tmp_path: Path) -> None:
    folder = _fit(_run(**SPARSE, record={"eigenvalue_every": 2, "probe_samples": 50}), tmp_path)
    rows, last = _history(folder), Checkpoint.load(folder / "last.pt")
    measured = {"eigenvalue", "eigenvalue_residual", "weight_norm"}
    assert [measured & row.keys() for row in rows] == [measured, set(), measured]
    net, probe = last.build(), datasets.load("digits").batches(images=50)
    (top,) = spectrum(Problem(net, probe, mask=last.mask), top=1).eigenvalues
    squares = sum(p.double().square().sum().item() for p in net.parameters())
    assert rows[-1]["eigenvalue"] == pytest.approx(top, rel=0.02)
    assert rows[-1]["eigenvalue_residual"] < 1e-2
    assert rows[-1]["weight_norm"] == pytest.approx(math.sqrt(squares), rel=1e-5)


# what is measured


def test_evaluation_is_plain_cross_entropy_in_evaluation_mode(tmp_path: Path) -> None:
    folder, data = _fit(_run(**RESNET, **TOST), tmp_path), datasets.load("digits")
    net = Checkpoint.load(folder / "last.pt").build()
    with torch.no_grad():
        outputs = net(data.normalise(data.validation.pixels))
    loss = float(F.cross_entropy(outputs, data.validation.labels))
    accuracy = float((outputs.argmax(1) == data.validation.labels).double().mean())
    assert _history(folder)[-1]["val_loss"] == pytest.approx(loss, rel=1e-5)
    assert _history(folder)[-1]["val_accuracy"] == pytest.approx(accuracy)
    assert evaluate(net.train(), data, data.validation, chunk=7) == pytest.approx((loss, accuracy))


def test_the_training_loss_is_the_mean_over_all_images(tmp_path: Path) -> None:
    still = {"lr": 1e-12, "batch_size": 500}
    folder = _fit(_run(1, optim=still), tmp_path)
    expected = _measured(Checkpoint.load(folder / "last.pt"), "train")
    (row,) = _history(folder)
    assert (row["train_loss"], row["train_accuracy"]) == pytest.approx(expected, rel=1e-5)


def test_smoothing_is_in_the_objective_alone(tmp_path: Path) -> None:
    optim = {"lr": 0.1, "lr_milestones": [], "batch_size": 64}
    row = _history(_fit(_run(6, tweaks=["smoothing"], optim=optim), tmp_path))[-1]
    assert row["objective"] > 0.5002 > max(row["train_loss"], row["val_loss"])


def test_the_training_loss_has_no_smoothing(tmp_path: Path) -> None:
    """Without steps of any length, it is the cross-entropy of the network on all images."""
    still = {"lr": 1e-12, "batch_size": 500}
    folder = _fit(_run(1, optim=still, tweaks=["smoothing"]), tmp_path)
    (row,) = _history(folder)
    loss, _ = _measured(Checkpoint.load(folder / "last.pt"), "train")
    assert row["train_loss"] == pytest.approx(loss, rel=1e-5)
    assert row["objective"] != pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    ("until", "drops", "accuracies", "best"),
    [
        (0.4, [], [0.9, 0.8, 0.3, 0.6, 0.5, 0.1], 4),  # the first net without ghosts is of epoch 3
        (0.4, [0.75], [0.9, 0.8, 0.3, 0.6, 0.1, 0.5], 6),  # the first lower rate is of epoch 5
        (0.6, [0.2, 0.9], [0.9, 0.8, 0.3, 0.6, 0.5, 0.1], 5),
        (0.4, [], [0.9, 0.8, 0.6, 0.6, 0.5, 0.1], 4),  # of two alike, the one of lower loss
        (0.4, [], [0.9, 0.8, 0.5, 0.6, 0.6, 0.1], 4),
        (0.4, [], [0.0] * 6, 4),
    ],
)
def test_the_best_epoch_is_after_the_ghosts_and_the_first_drop(
    until: float,
    drops: list[float],
    accuracies: list[float],
    best: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = [abs(epoch - 3.0) for epoch in range(6)]
    scripted = iter([*zip(losses, accuracies, strict=True), (0.0, 0.0), (0.0, 0.0)])
    monkeypatch.setattr("training.loop.evaluate", lambda *_: next(scripted))
    tweaks = {"ghost_neurons": {"until": until}}
    folder = _fit(_run(6, tweaks=tweaks, optim={"lr_milestones": drops}), tmp_path)
    assert [row["epoch"] for row in _history(folder) if row.get("best")] == [best]
    net = Checkpoint.load(folder / "best.pt").build()
    assert {m.strength for m in net.modules() if isinstance(m, Ghost)} == {0}


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_shortest_runs_have_a_best_epoch(epochs: int, tmp_path: Path) -> None:
    rows = _history(_fit(_run(epochs, optim={"lr_milestones": [0.9]}), tmp_path))
    assert [row["epoch"] for row in rows if row.get("best")] == [epochs]


def test_ghosts_fade_in_the_history_and_in_the_checkpoints(tmp_path: Path) -> None:
    folder = _fit(_run(4, **ALL, record={"checkpoint_epochs": [2]}), tmp_path)
    assert [row["ghosts"] for row in _history(folder)] == pytest.approx([1, 0.125, 0, 0])
    net = Checkpoint.load(folder / "epoch-002.pt").build()
    strengths = {m.strength for m in net.modules() if isinstance(m, Ghost)}
    assert sorted(strengths) == pytest.approx([0.1, 0.125])


def test_the_optimiser_gets_the_rate_of_every_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.optim.Optimizer] = []
    build = Optim.build
    monkeypatch.setattr(Optim, "build", lambda *args: made.append(build(*args)) or made[0])
    used: list[float] = []
    _fit(_run(4), tmp_path, lambda _: used.append(made[0].param_groups[0]["lr"]))
    assert used == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_batches_of_one_image_train_or_are_refused(tmp_path: Path) -> None:
    rows = _history(_fit(_run(1, optim={"batch_size": 1, "lr": 1e-3}), tmp_path))
    assert rows[0]["train_loss"] > 0


# the same again


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    one, other = (_bytes(_fit(_run(seed=seed), tmp_path) / "last.pt") for seed in (0, 1))
    assert all(one[name] != other[name] for name in one)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    folder = _fit(_run(**ALL), tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    rows: list[Row] = []
    assert _fit(_run(**ALL), tmp_path, rows.append) == folder
    assert not rows
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_the_global_random_state_is_left_alone(tmp_path: Path) -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    python_before = random.getstate()
    _fit(_run(**ALL), tmp_path)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    assert random.getstate() == python_before


# interruptions


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    ("table", "epoch"),
    [
        (ADAM, 1),
        (ADAM, 4),
        (ALL, 2),
        (MLP | {"mask": HALF, "rewind": 0.25, "resume_schedule": True}, 3),
        (WIDE | {"compute": {"layout": "channels_last"}}, 1),
        (WIDE | {"compute": {"precision": "bf16"}}, 1),
    ],
    ids=["adam-1", "adam-4", "tost-2", "rewound", "channels-last", "bf16"],
)
def test_an_interrupted_run_goes_on_to_the_same_end(
    table: dict[str, Any], epoch: int, tmp_path: Path
) -> None:
    run = _run(4, **table)
    whole = _fit(run, tmp_path / "whole")
    torch.rand(3)
    if run.mask.before():  # the dense training is interrupted too
        with pytest.raises(KeyboardInterrupt):
            _fit(run.plain(), tmp_path / "cut", _stop_after(2))
        _fit(run.plain(), tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        _fit(run, tmp_path / "cut", _stop_after(epoch))
    assert not finished(tmp_path / "cut" / "runs" / run.id)
    rows: list[Row] = []
    _assert_same(whole, _fit(run, tmp_path / "cut", rows.append))
    assert [row["epoch"] for row in rows] == list(range(epoch + 1, 5))
    last = Checkpoint.load(whole / "last.pt")
    assert all(t.is_contiguous() for t in last.weights.values())
    assert last.mask is not None
    assert not any(last.weights[name][~m].any() for name, m in last.mask.items())


@pytest.mark.usefixtures("eager")
def test_rows_of_a_watch_go_on_to_the_same_end(tmp_path: Path) -> None:
    """Also if rows were written after the last saved epoch."""
    rigl = {"method": "rigl", "density": 0.2, "update_interval": 2}
    names = "gradient,mask,noise,critical_sharpness"
    record = {"watch_every": 2, "watch_metrics": names, "probe_samples": 32}
    run, files = _run(4, mask=rigl, record=record), []
    for cut in (False, True):
        if cut:
            with pytest.raises(KeyboardInterrupt):
                _fit(run, tmp_path / "True", _stop_after(2))
            (file,) = (tmp_path / "True").rglob("watch.jsonl")
            file.write_text(file.read_text() + '{"step": 8, "loss": 1.0}\n{"step": 10, "lo')
        lines = (_fit(run, tmp_path / str(cut)) / "watch.jsonl").read_text().splitlines()
        files.append([json.loads(line) | {"watch_seconds": 0, "started": ""} for line in lines])
    assert files[0] == files[1]
    assert [row["step"] for row in files[0] if "loss" in row] == [2, 4, 6, 8, 10, 12]


@pytest.mark.usefixtures("eager")
def test_the_best_epoch_so_far_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = iter([0.5, 0.9, 0.7, 0.8, 0.0, 0.0])
    monkeypatch.setattr("training.loop.evaluate", lambda *_: (1.0, next(scripted)))
    run = _run(4, optim={"lr_milestones": []})
    with pytest.raises(KeyboardInterrupt):
        _fit(run, tmp_path, _stop_after(3))
    assert [row.get("best", False) for row in _history(_fit(run, tmp_path))] == [0, 1, 0, 0]


def test_a_run_stopped_before_its_first_save_starts_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _fit(_run(), tmp_path / "cut", _stop_after(2))
    assert not list((tmp_path / "cut").rglob("last.pt"))
    assert len(_history(tmp_path / "cut" / "runs" / _run().id)) == 2
    _assert_same(_fit(_run(), tmp_path / "whole"), _fit(_run(), tmp_path / "cut"))


def test_ten_kills_change_no_byte(tmp_path: Path) -> None:
    table = {
        "optim": {"epochs": 24, "batch_size": 100},
        "mask": {"method": "rigl", "density": 0.2, "update_interval": 7},
        "tweaks": {
            "ghost_neurons": {},
            "ghost_skips": {},
            "rescale": {"steps": 5},
            "smoothing": {},
        },
        "record": {"gradient_flow": True},
    }
    run = _run(24, **table | {"model": {"name": "mlp", "width": 32}})
    (tmp_path / "run.toml").write_text(run.toml())
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *(tmp_path / name for name in ("run.toml", "cut", "whole"))],
        cwd=Path(training.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == 10
    _assert_same(*(tmp_path / name / "runs" / run.id for name in ("whole", "cut")))


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_a_run_stopped_while_it_finishes_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, ending = Checkpoint.save, []
    scripted = [0.1, 0.5, 0.2]  # so that the best epoch is not the last
    run = _run(3, optim={"lr_milestones": []})

    def measured(net: torch.nn.Module, data: datasets.Data, images: datasets.Images) -> Any:
        loss, accuracy = evaluate(net, data, images)
        return loss, scripted.pop(0) if scripted else accuracy

    def stop(checkpoint: Checkpoint, path: Path) -> None:
        save(checkpoint, path)
        ending.append(path.name == "last.pt" and checkpoint.resume is None)
        if any(ending) and path.name == name:
            raise KeyboardInterrupt

    monkeypatch.setattr("training.loop.evaluate", measured)
    whole = _fit(run, tmp_path / "whole")
    scripted[:] = [0.1, 0.5, 0.2]
    monkeypatch.setattr(Checkpoint, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        _fit(run, tmp_path / "cut")
    monkeypatch.setattr(Checkpoint, "save", save)
    _assert_same(whole, _fit(run, tmp_path / "cut"))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), r"last.pt: not a torch checkpoint"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), r"last.pt is damaged"),
        (lambda path: replace(Checkpoint.load(path), mask=None).save(path), "remove that folder"),
        (lambda path: replace(Checkpoint.load(path), resume=None).save(path), "remove that folder"),
    ],
    ids=["empty", "cut", "mask", "resume"],
)
def test_a_checkpoint_that_cannot_be_resumed_is_refused(
    damage: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        _fit(_run(**SPARSE), tmp_path, _stop_after(2))
    damage(next(tmp_path.rglob("last.pt")))
    with pytest.raises(CheckpointError, match=message):
        _fit(_run(**SPARSE), tmp_path)


# divergence

ALL_IMAGES = {"lr": 1e20, "batch_size": 2000}


@pytest.mark.parametrize(
    ("optim", "record", "message"),
    [
        (
            {"lr": 1e20},
            {},
            r"^the training loss is (nan|inf) in epoch 1 from step 2 on, at learning rate 1e\+20; "
            r"lower optim.lr. Last good checkpoint: none yet$",
        ),
        ({"lr": 1e20}, {"gradient_flow": True}, "epoch 1"),
        ({"lr": 1e20}, {"eigenvalue_every": 1}, "epoch 1"),
        (ALL_IMAGES, {}, r"^the validation loss is (nan|inf) after epoch 1, at lear"),
        (ALL_IMAGES, {"gradient_flow": True}, r"^the validation loss is (nan|inf) after epoch 1"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_training(
    optim: dict[str, Any], record: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match=message):
        _fit(_run(optim=optim, record=record), tmp_path)
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.usefixtures("eager")
def test_a_late_divergence_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = _run(4, optim={"lr_gamma": 1e20, "lr_milestones": [0.5]})
    with pytest.raises(Diverged, match=r"epoch 3 .* learning rate 1e\+19;.*checkpoint: .*last\.pt"):
        _fit(run, tmp_path)
    (path,) = tmp_path.rglob("last.pt")
    assert len(Checkpoint.load(path).history) == 2


def test_a_date_and_time_makes_a_seed(tmp_path: Path) -> None:
    assert _fit(_run(1, seed=20260726123456), tmp_path).is_dir()


def test_every_column_that_is_written_is_documented(tmp_path: Path) -> None:
    record = {"gradient_flow": True, "eigenvalue_every": 1}
    folder = _fit(_run(epochs=1, record=record), tmp_path)
    (row,) = _history(folder)
    assert set(row) == set(metrics.HISTORY)
    assert set(json.loads((folder / "costs.jsonl").read_text())) == set(metrics.COSTS)
