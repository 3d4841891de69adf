"""Check every mask, tweak and diagnostic on the device: resumed, moved, and two at once."""

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
from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.core.errors import ConfigError
from sparsediag.core.mask import Mask
from sparsediag.data import datasets
from sparsediag.models import SKIPS
from tests.gpu import diagnostics
from tests.gpu.settings import Measurements, Row, Settings, Skip, check
from training.config import Run
from training.dependencies import with_prerequisites
from training.loop import fit
from training.progress import fit_all
from training.setup import start

FILES = ("best.pt", "last.pt", "history.jsonl")
SCORED = 1e-3  # share of the entries of a mask that may be others on a CPU, by rounding of scores
Table = dict[str, Any]
SPARSE: Table = {"mask": {"method": "random", "density": 0.2}}
CONVOLUTIONS: Table = {"model": {"name": "resnet6", "width": 8}}
MASKS: dict[str, Table] = {
    "dense": {},
    "random": SPARSE,
    "random, ERK": {"mask": {"method": "random", "density": 0.2, "scope": "erk"}},
    "magnitude": {"mask": {"method": "magnitude", "density": 0.2}},
    "lottery": {"mask": {"method": "lottery", "density": 0.25, "prune_rate": 0.5}},
    "snip": {"mask": {"method": "snip", "density": 0.2}},
    "grasp": {"mask": {"method": "grasp", "density": 0.2}},
    "synflow": {"mask": {"method": "synflow", "density": 0.2}},
    "rigl": {"mask": {"method": "rigl", "density": 0.2, "update_interval": 3}},
    "set": {"mask": {"method": "set", "density": 0.2, "update_interval": 3}},
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
    "records": {"record": {"gradient_flow": True, "eigenvalue_every": 1, "probe_samples": 64}},
}


def run_of(settings: Settings, table: Table) -> Run:
    """Return a run of three epochs on digits, with a small net unless the table names one."""
    model = settings.size({"name": "resnet18", "width": 8}, {"name": "lenet300", "width": 64})
    optim = {"epochs": 3, "batch_size": settings.size(128, 195), "lr": 0.05} | table.get(
        "optim", {}
    )
    return Run.of({"data": "digits", "model": model, **table, "optim": optim})


def measurements(settings: Settings) -> Measurements:
    settings.out.mkdir(parents=True, exist_ok=True)
    training.loop.SAVE_EVERY = 0.0  # so that every epoch can be gone on from
    with tempfile.TemporaryDirectory(dir=settings.out, prefix="checks-") as folder:
        straight = Path(folder, "straight")
        for name, table in MASKS.items():
            yield (
                f"mask: {name}",
                lambda table=table: resumed(run_of(settings, table), settings, straight),
            )
        yield "mask: from a file", lambda: from_a_file(settings, straight)
        for name, table in MASKS.items():
            if table:
                run = run_of(settings, table)
                yield (
                    f"the CPU's mask: {name}",
                    lambda run=run: as_on_a_cpu(run, settings, straight),
                )
        yield from diagnostics.measurements(settings, _recorded(settings, straight))
        yield "a checkpoint of the device on a CPU", lambda: on_a_cpu(settings, straight)
        yield "half-way on the device, ended on a CPU", lambda: ended_on_a_cpu(settings, straight)
        yield "two jobs at once", lambda: two_jobs(settings, straight)
        for name, table in TWEAKS.items():
            run = run_of(settings, SPARSE | table)
            yield f"tweak: {name}", lambda run=run: resumed(run, settings, straight)


def resumed(run: Run, settings: Settings, straight: Path) -> Row:
    """Train, train again with a stop after the first epoch, and compare the files."""
    device = str(settings.device)
    try:
        one = fit(run, out=straight, device=device).parent
    except ConfigError as refusal:
        if "interpolate" in str(run.table()["tweaks"]) and settings.cuda:
            raise Skip(f"refused: {refusal}") from None
        raise
    with tempfile.TemporaryDirectory(dir=settings.out) as folder:
        for earlier in with_prerequisites(run)[:-1]:
            shutil.copytree(straight / "runs" / earlier.id, Path(folder, "runs", earlier.id))
        _halfway(run, Path(folder), device)
        other = fit(run, out=Path(folder), device=device).parent
        same = {f: (one / f).read_bytes() == (other / f).read_bytes() for f in FILES}
    accuracy = Checkpoint.load(one / "last.pt").history[-1]["train_accuracy"]
    return check({"train accuracy": accuracy}, **{f"the_same_{f}": s for f, s in same.items()})


def _halfway(run: Run, out: Path, device: str) -> None:
    """Train for one epoch, then interrupt the run."""

    def stop(_: Row) -> None:
        raise InterruptedError

    try:
        fit(run, out=out, device=device, on_epoch=stop)
    except InterruptedError:
        return
    raise AssertionError("the run was not stopped")


def from_a_file(settings: Settings, straight: Path) -> Row:
    """Train with the mask of an earlier run, read from its checkpoint."""
    before = straight / "runs" / run_of(settings, SPARSE).id / "last.pt"
    return resumed(run_of(settings, {"mask": f"file:{before}"}), settings, straight)


def as_on_a_cpu(run: Run, settings: Settings, straight: Path) -> Row:
    """Compare the mask that a run starts with on the device and on the CPU."""
    masks: list[Mask] = []
    for device in (settings.device, torch.device("cpu")):
        data = datasets.load(run.data, device=device)
        found = start(run, data, out=straight, device=device).mask
        assert found is not None
        masks.append(found.to("cpu"))
    here, there = masks
    other = sum(int((here[name] != there[name]).sum()) for name in here)
    bound = 0 if run.table()["mask"]["method"] in ("random", "rigl", "set") else SCORED
    row = {"other entries": other, "of": here.size}
    return check(row, the_same_mask=other <= bound * here.size)


def _recorded(settings: Settings, straight: Path) -> Any:
    """Return a function that trains a sparse net once and returns its folder of checkpoints."""

    @cache
    def folder() -> Path:
        run = run_of(settings, SPARSE | {"record": {"checkpoint_epochs": [1, 2]}})
        return fit(run, out=straight, device=str(settings.device)).parent

    return folder


READS = """
import sys
from sparsediag.checkpoint.checkpoint import Checkpoint
print(Checkpoint.load(sys.argv[1]).problem(images=100, device="cpu").value())
"""


def on_a_cpu(settings: Settings, straight: Path) -> Row:
    """Compare the loss of a checkpoint here and in a process that sees no GPU."""
    file = straight / "runs" / run_of(settings, SPARSE).id / "best.pt"
    here = Checkpoint.load(file).problem(images=100, device=str(settings.device)).value()
    done = subprocess.run(
        [sys.executable, "-c", READS, str(file)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    off = abs(float(done.stdout) - here) / here
    return check({"error": off}, the_same_loss=off < 1e-5)


def ended_on_a_cpu(settings: Settings, straight: Path) -> Row:
    """Stop a run on the device, continue it on the CPU, and compare the losses at the end.

    After three epochs they differ by rounding only.
    """
    run = run_of(settings, SPARSE)
    with tempfile.TemporaryDirectory(dir=settings.out) as folder:
        _halfway(run, Path(folder), str(settings.device))
        came = Checkpoint.load(fit(run, out=Path(folder), device="cpu")).history[-1]["train_loss"]
    kept = Checkpoint.load(straight / "runs" / run.id / "best.pt")
    off = abs(came / kept.history[-1]["train_loss"] - 1)
    return check({"loss, off by": off}, near=off < 0.05)


def two_jobs(settings: Settings, straight: Path) -> Row:
    """Train two runs at once in two processes; the files must be those of one at a time."""
    runs = [run_of(settings, MASKS[name]) for name in ("random", "snip")]
    with tempfile.TemporaryDirectory(dir=settings.out) as folder:
        errors = fit_all(runs, out=Path(folder), device=str(settings.device), jobs=2)
        for error in errors.values():
            raise error
        names = [Path("runs", run.id, file) for run in runs for file in FILES]
        same = all((folder / n).read_bytes() == (straight / n).read_bytes() for n in names)
    return check({}, the_same_bytes=same)
