"""Every mask, tweak and diagnostic on the device; resumed, moved and side by side."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

import training.loop
from sparsediag import data as datasets
from sparsediag.checkpoint import Checkpoint
from sparsediag.errors import ConfigError
from sparsediag.mask import Mask
from sparsediag.models import SKIPS
from tests.gpu import diagnosed
from tests.gpu.place import Measurements, Place, Row, Skip, check
from training.config import Run
from training.loop import fit
from training.progress import together
from training.stages import stages
from training.start import start

FILES = ("best.pt", "last.pt", "history.jsonl")
SCORED = 1e-3  # share of the entries of a mask that may be others on a CPU, by rounding of scores
Table = dict[str, Any]
SPARSE: Table = {"mask": {"method": "random", "density": 0.2}}
CONVOLUTIONS: Table = {"model": {"name": "resnet10", "width": 8}}
MASKS: dict[str, Table] = {
    "dense": {},
    "random": SPARSE,
    "random, ERK": {"mask": {"method": "random", "density": 0.2, "scope": "erk"}},
    "magnitude": {"mask": {"method": "magnitude", "density": 0.2}},
    "lottery": {"mask": {"method": "lottery", "density": 0.25, "cut": 0.5}},
    "snip": {"mask": {"method": "snip", "density": 0.2}},
    "grasp": {"mask": {"method": "grasp", "density": 0.2}},
    "synflow": {"mask": {"method": "synflow", "density": 0.2}},
    "rigl": {"mask": {"method": "rigl", "density": 0.2, "every": 3}},
    "set": {"mask": {"method": "set", "density": 0.2, "every": 3}},
    "learned": {"mask": {"method": "learned", "density": 0.2}, "rewind": 1.0},
}
TWEAKS: dict[str, Table] = {
    "tost": {"tweaks": ["ghost_neurons", "ghost_skips", "smoothing"]},
    "ghost neurons": {"tweaks": ["ghost_neurons"]},
    **{
        f"ghost skips, {kind}": CONVOLUTIONS | {"tweaks": {"ghost_skips": {"kind": kind}}}
        for kind in SKIPS
    },
    "rescale": {"tweaks": {"rescale": {"steps": 3}}},
    "smoothing": {"tweaks": ["smoothing"]},
    "distillation": {"tweaks": ["distillation"]},
    "adam": {"optim": {"name": "adam", "lr": 1e-3}},
    "bf16": {"compute": {"precision": "bf16"}},
    "crops and flips": {"augment": "crop_flip"},
    "rewound": {"rewind": 0.34},
    "records": {"record": {"gradient_flow": True, "eigenvalue_every": 1, "images": 64}},
}


def run_of(place: Place, table: Table) -> Run:
    """Three epochs on digits, of a small net where the table names none."""
    model = place.size({"name": "resnet18", "width": 8}, {"name": "lenet300", "width": 64})
    optim = {"epochs": 3, "batch": place.size(128, 195), "lr": 0.05} | table.get("optim", {})
    return Run.of({"data": "digits", "model": model, **table, "optim": optim})


def measurements(place: Place) -> Measurements:
    place.out.mkdir(parents=True, exist_ok=True)
    training.loop.SAVE_EVERY = 0.0  # so that every epoch can be gone on from
    with tempfile.TemporaryDirectory(dir=place.out, prefix="checks-") as folder:
        straight = Path(folder, "straight")
        for name, table in MASKS.items():
            yield (
                f"mask: {name}",
                lambda table=table: resumed(run_of(place, table), place, straight),
            )
        yield "mask: from a file", lambda: from_a_file(place, straight)
        for name, table in MASKS.items():
            if table:
                run = run_of(place, table)
                yield f"the CPU's mask: {name}", lambda run=run: as_on_a_cpu(run, place, straight)
        yield from diagnosed.measurements(place, _recorded(place, straight))
        yield "a checkpoint of the device on a CPU", lambda: on_a_cpu(place, straight)
        yield "half-way on the device, ended on a CPU", lambda: ended_on_a_cpu(place, straight)
        yield "two jobs at once", lambda: two_jobs(place, straight)
        for name, table in TWEAKS.items():
            run = run_of(place, SPARSE | table)
            yield f"tweak: {name}", lambda run=run: resumed(run, place, straight)


def resumed(run: Run, place: Place, straight: Path) -> Row:
    """Train, and again with a stop after the first epoch: the files are the same."""
    device = str(place.device)
    try:
        one = fit(run, out=straight, device=device).parent
    except ConfigError as refusal:
        if "interpolate" in str(run.table()["tweaks"]) and place.cuda:
            raise Skip(f"refused: {refusal}") from None
        raise
    with tempfile.TemporaryDirectory(dir=place.out) as folder:
        for earlier in stages(run)[:-1]:
            shutil.copytree(straight / "runs" / earlier.id, Path(folder, "runs", earlier.id))
        _halfway(run, Path(folder), device)
        other = fit(run, out=Path(folder), device=device).parent
        same = {f: (one / f).read_bytes() == (other / f).read_bytes() for f in FILES}
    accuracy = Checkpoint.load(one / "last.pt").history[-1]["train_accuracy"]
    return check({"train accuracy": accuracy}, **{f"the_same_{f}": s for f, s in same.items()})


def _halfway(run: Run, out: Path, device: str) -> None:
    """Train for an epoch, and stop."""

    def stop(_: Row) -> None:
        raise InterruptedError

    try:
        fit(run, out=out, device=device, on_epoch=stop)
    except InterruptedError:
        return
    raise AssertionError("the run was not stopped")


def from_a_file(place: Place, straight: Path) -> Row:
    """The mask of an earlier run, from its checkpoint."""
    before = straight / "runs" / run_of(place, SPARSE).id / "last.pt"
    return resumed(run_of(place, {"mask": f"file:{before}"}), place, straight)


def as_on_a_cpu(run: Run, place: Place, straight: Path) -> Row:
    """The mask that a run starts with, from the same checkpoints, here and on a CPU."""
    masks: list[Mask] = []
    for device in (place.device, torch.device("cpu")):
        data = datasets.load(run.data, device=device)
        found = start(run, data, out=straight, device=device).mask
        assert found is not None
        masks.append(found.to("cpu"))
    here, there = masks
    other = sum(int((here[name] != there[name]).sum()) for name in here)
    bound = 0 if run.table()["mask"]["method"] in ("random", "rigl", "set") else SCORED
    row = {"other entries": other, "of": here.size}
    return check(row, the_same_mask=other <= bound * here.size)


def _recorded(place: Place, straight: Path) -> Any:
    """Trains once, when it is first asked for, a sparse net whose checkpoints are all kept."""

    @cache
    def folder() -> Path:
        run = run_of(place, SPARSE | {"record": {"checkpoints": [1, 2]}})
        return fit(run, out=straight, device=str(place.device)).parent

    return folder


READS = """
import sys
from sparsediag.checkpoint import Checkpoint
print(Checkpoint.load(sys.argv[1]).problem(images=100, device="cpu").value())
"""


def on_a_cpu(place: Place, straight: Path) -> Row:
    """The loss of a checkpoint, here and in a process that sees no GPU."""
    file = straight / "runs" / run_of(place, SPARSE).id / "best.pt"
    here = Checkpoint.load(file).problem(images=100, device=str(place.device)).value()
    done = subprocess.run(
        [sys.executable, "-c", READS, str(file)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    off = abs(float(done.stdout) - here) / here
    return check({"error": off}, the_same_loss=off < 1e-5)


def ended_on_a_cpu(place: Place, straight: Path) -> Row:
    """A run that is stopped on the device goes on on a CPU; its loss is that of one that was not.

    Rounding alone moves a loss of three epochs by little.
    """
    run = run_of(place, SPARSE)
    with tempfile.TemporaryDirectory(dir=place.out) as folder:
        _halfway(run, Path(folder), str(place.device))
        came = Checkpoint.load(fit(run, out=Path(folder), device="cpu")).history[-1]["train_loss"]
    kept = Checkpoint.load(straight / "runs" / run.id / "best.pt")
    off = abs(came / kept.history[-1]["train_loss"] - 1)
    return check({"loss, off by": off}, near=off < 0.05)


def two_jobs(place: Place, straight: Path) -> Row:
    """Two trainings at once in two processes end with the files of one alone."""
    runs = [run_of(place, MASKS[name]) for name in ("random", "snip")]
    with tempfile.TemporaryDirectory(dir=place.out) as folder:
        errors = together(runs, out=Path(folder), device=str(place.device), jobs=2)
        for error in errors.values():
            raise error
        names = [Path("runs", run.id, file) for run in runs for file in FILES]
        same = all((folder / n).read_bytes() == (straight / n).read_bytes() for n in names)
    return check({}, the_same_bytes=same)
