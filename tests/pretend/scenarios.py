"""Scenarios: what is run on the pretend GPU. Each gets the ledger and a folder, and yields rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from sparsediag.cli import app
from sparsediag.cli.output import NOT_CONVERGED
from sparsediag.curvature.engines import Mode
from sparsediag.diagnostics import DIAGNOSTICS, load_diagnostic
from sparsediag.diagnostics.traits import traits_of
from sparsediag.models import SKIPS
from tests.pretend.ledger import Ledger
from training import captured, loop
from training.config import Run
from training.loop import fit
from training.masks import METHODS
from training.tweaks import TWEAKS

Row = dict[str, Any]
Table = dict[str, Any]

# shortcuts without a convolution: see channels_last of strided 1x1 convolutions on a CPU
SMALL: Table = {
    "data": "digits",
    "augment": "crop_flip",
    "model": {"name": "resnet6", "width": 8, "options": {"shortcut": "A"}},
    "mask": {"method": "random", "density": 0.5},
    "optim": {"epochs": 2, "batch_size": 585, "lr": 0.02},
    "record": {"probe_samples": 64},
}
MASKS: dict[str, Table] = {  # options without which a method would do nothing here
    "dense": {},
    "lottery": {"density": 0.7},  # two rounds
    "rigl": {"density": 0.5, "update_interval": 2},
    "set": {"density": 0.5, "update_interval": 2},
}
QUICK: dict[str, list[str]] = {  # options of a diagnostic that make it short
    "spectrum": ["--top", "2", "--tol", "0.1", "--max-products", "12"],
    "blocks": ["--by", "stage", "--tol", "0.1", "--max-products", "8"],
    "trace": ["--sketch", "1", "--max-products", "14"],
    "landscape": ["--points", "3"],
    "inputscape": ["--points", "3"],
    "perturbation": ["--top", "1", "--points", "3", "--tol", "0.2"],
}
WAYS: dict[str, list[str]] = {  # other ways of some of them, and through the solvers of others
    "spectrum density": ["--density", "--probes", "2", "--steps", "4", *QUICK["spectrum"]],
    "spectrum fisher": ["--matrix", "fisher", *QUICK["spectrum"]],
    "spectrum pyhessian": ["--solver", "pyhessian", "--top", "1", "--tol", "0.5"],
    "landscape eigenvectors": ["--axes", "eigenvectors", "--dims", "1", *QUICK["landscape"]],
    "landscape gradient": ["--axes", "gradient", "--dims", "1", *QUICK["landscape"]],
    "inputscape eigenvectors": ["--axes", "eigenvectors", "--count", "4", *QUICK["inputscape"]],
}
# those that no row above has taken, and that need no compiler
MODES = [mode for mode in get_args(Mode) if mode not in ("auto", "tape", "compiled")]


class Book:
    """Rows of what a scenario did on the device, by name."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.rows: dict[str, Row] = {}

    @contextmanager
    def row(self, name: str) -> Iterator[Row]:
        """Count what is done inside."""
        kept = self.ledger
        before, began = (kept.operations, kept.waits.total(), kept.copies.total()), time.monotonic()
        row: Row = {}
        yield row
        after = kept.operations, kept.waits.total(), kept.copies.total()
        counts = (b - a for a, b in zip(before, after, strict=True))
        row |= dict(zip(("operations", "waits", "copies"), counts, strict=True))
        row["seconds"] = round(time.monotonic() - began, 2)
        self.rows[name] = row


def train(out: Path, *changes: Table, **options: Any) -> Path:
    """Train the small run with changes on the GPU; the folder of the run."""
    table = SMALL
    for change in changes:
        table = table | change
    return fit(Run.of(table), out=out, device="cuda", **options).parent


def _sparsediag(*words: object) -> None:
    """One command, which must end well; it may be cut short before it has converged."""
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = app.main([*map(str, words), "--device", "cuda", "--images", "64"])
    if code not in (0, NOT_CONVERGED):
        raise RuntimeError(f"sparsediag {words}: {said.getvalue()}")


def diagnostics(book: Book, out: Path) -> None:
    """Every diagnostic of a checkpoint; of a run where it can; products in every mode."""
    folder = train(out, {"record": {"probe_samples": 64, "checkpoint_epochs": [1]}})
    for name in DIAGNOSTICS:
        with book.row(name):
            _sparsediag(name, folder / "last.pt", *QUICK.get(name, []))
    for name, options in WAYS.items():
        with book.row(name):
            _sparsediag(name.partition(" ")[0], folder / "last.pt", *options)
    for options in ([], ["--shared", "--dims", "1"]):
        with book.row(f"landscape of two nets{' shared' if options else ''}"):
            nets = folder / "last.pt", folder / "epoch-001.pt"
            _sparsediag("landscape", *nets, *options, *QUICK["landscape"])
    for name in DIAGNOSTICS:
        if not traits_of(load_diagnostic(name)).takes_run:
            continue
        with book.row(f"{name} of a run"):
            _sparsediag(name, folder, *QUICK.get(name, []))
    for mode in MODES:
        with book.row(f"mode {mode}"):
            _sparsediag("trace", folder / "last.pt", "--mode", mode, *QUICK["trace"])


def masks(book: Book, out: Path) -> None:
    """Every pruning method."""
    folder = train(out / "before")
    for name in METHODS:
        options = {"path": str(folder / "last.pt")} if name == "file" else {"density": 0.5}
        with book.row(name):
            train(out, {"mask": {"method": name, **MASKS.get(name, options)}})


def tweaks(book: Book, out: Path) -> None:
    """Every tweak, distillation among them, and every kind of ghost skip."""
    for name in TWEAKS:
        with book.row(name):
            train(out, {"tweaks": {name: {"steps": 2} if name == "rescale" else {}}})
    for kind in SKIPS:
        layout = "contiguous" if kind == "conv1x1_bn" else "auto"
        skips = {"ghost_skips": {"kind": kind, "site": "block_output"}}
        with book.row(f"skips {kind}"):
            train(out, {"tweaks": skips, "compute": {"layout": layout}})


def records(book: Book, out: Path) -> None:
    """What is measured while a net trains, rewinding, going on, Adam, bfloat16."""
    with book.row("records"):
        record = {
            "probe_samples": 64,
            "checkpoint_epochs": [1],
            "gradient_flow": True,
            "eigenvalue_every": 2,
            "watch_every": 4,
            "watch_metrics": "activations,gradient,update,mask,noise,probe_activations,"
            "update_curvature,critical_sharpness",
        }
        train(out, {"record": record})
    magnitude = {"mask": {"method": "magnitude", "density": 0.5}, "rewind": 0.5}
    with book.row("rewinding"):
        train(out, magnitude)
    with book.row("rewinding and going on"):
        train(out, magnitude, {"resume_schedule": True})
    adam = {"optim": SMALL["optim"] | {"name": "adam", "lr": 0.001, "epochs": 3}}
    gates = {"mask": {"method": "learned"}}
    for name, change in {"adam": adam, "learned": gates, "sgd": {}}.items():
        with book.row(f"resumed {name}") as row:
            row["same"] = _resumed(out, change)
    with book.row("bfloat16"):
        train(out, {"compute": {"precision": "bf16"}})


def _resumed(out: Path, change: Table) -> bool:
    """Whether a run that is stopped after its first epoch ends with the files of a whole one."""

    class Stopped(Exception):
        pass

    def stop(row: Any) -> None:
        raise Stopped

    loop.SAVE_EVERY = 0.0
    whole = train(out / "whole", change)
    try:
        train(out / "parts", change, on_epoch=stop)
    except Stopped:
        parts = train(out / "parts", change)
    files = ("last.pt", "best.pt", "history.jsonl")
    return all((whole / f).read_bytes() == (parts / f).read_bytes() for f in files)


TOST: Table = {"ghost_neurons": {}, "ghost_skips": {}, "smoothing": {}, "rescale": {"steps": 1}}
STEPS: dict[str, Table] = {
    "dense": {"mask": {"method": "dense"}},
    "masked": {},
    "ToST": {"tweaks": TOST},
    "RigL": {"mask": {"method": "rigl", "density": 0.5, "update_interval": 4}},
    "learned": {"mask": {"method": "learned"}},
    "distillation": {"tweaks": {"distillation": {}}},
    "adam": {"optim": {"name": "adam", "lr": 0.001}},
    "gradient flow": {"record": {"probe_samples": 64, "gradient_flow": True, "watch_every": 1000}},
}


def steps(book: Book, out: Path) -> None:
    """What happens between two steps of an optimiser, crops included; 10 steps an epoch."""
    for name, change in STEPS.items():
        _steps(book, name, out, change)


def _steps(book: Book, name: str, out: Path, change: Table) -> None:
    """Train without replays; the row has the waits and copies between steps, by place."""
    captured.WARMUP_STEPS = 10**9
    seen: list[Ledger] = []
    hook = register_optimizer_step_post_hook(lambda *_: seen.append(deepcopy(book.ledger)))
    with book.row(name) as row:
        train(
            out, change, {"optim": SMALL["optim"] | {"batch_size": 128} | change.get("optim", {})}
        )
    hook.remove()
    row["between"] = [
        {
            "waits": two.waits - one.waits,
            "copies": two.copies - one.copies,
            "operations": two.operations - one.operations,
        }
        for one, two in pairwise(seen)
    ]


def planted(book: Book, out: Path) -> None:
    """Mistakes, each of which must be found; the row says how."""
    x, y = torch.ones(3, device="cuda"), torch.ones(3)
    wrong = torch.Generator()
    right = torch.Generator("cuda").manual_seed(0)
    mistakes: dict[str, Callable[[], Any]] = {
        "a sum of both devices": lambda: x + y,
        "a number of the host in a stack": lambda: torch.stack([x[0], y[0]]),
        "a net and its images": lambda: torch.nn.Linear(3, 1).to("cuda")(y),
        "a number of the host that a GPU changes": lambda: y[0].add_(x[0]),
        "indices on the GPU of a tensor on the host": lambda: y[torch.zeros_like(x).long()],
        "numpy": lambda: x.numpy(),
        "an array": lambda: x.__array__(),
        "a host's generator": lambda: torch.rand(3, device="cuda", generator=wrong),
        "a host's generator in place": lambda: x.normal_(generator=wrong),
        "a GPU's generator": lambda: torch.randperm(3, generator=right),
        "a GPU that is not there": lambda: torch.cuda.set_device(1),
        "a tensor on it": lambda: torch.zeros(3, device="cuda:1"),
    }
    for name, mistake in mistakes.items():
        with book.row(name) as row:
            row |= {"mistake": True, "found": ""}
            try:
                mistake()
            except (RuntimeError, TypeError) as error:
                row["found"] = str(error)
    waits: dict[str, Callable[[], Any]] = {
        "float": lambda: float(x[0]),
        "if": lambda: bool(x[0]),
        "cpu": x.cpu,
        "to": lambda: y.to("cuda"),
        "tensor": lambda: torch.tensor([1.0], device="cuda"),
        "new_tensor": lambda: x.new_tensor([1.0]),
        "a mask as index": lambda: x[x > 0],
        "indices of the host": lambda: x[torch.tensor([0, 1])],
        "nonzero": lambda: x.nonzero(),
        "tolist": x.tolist,
        "synchronize": torch.cuda.synchronize,
    }
    for name, wait in waits.items():
        with book.row(f"wait: {name}"):
            wait()
    fine: dict[str, Callable[[], Any]] = {
        "sum": lambda: (x + 1).sum() * 2.0 + y[0],
        "generator": lambda: torch.rand(3, device="cuda", generator=right),
        "backward": lambda: (x.clone().requires_grad_() ** 2).sum().backward(),
        "index": lambda: x[torch.zeros(2, device="cuda").long()],
        "view": lambda: x.view(3, 1).expand(3, 2).contiguous(),
    }
    for name, call in fine.items():
        with book.row(f"fine: {name}"):
            call()

    def look(*_: Any) -> None:
        float(x[0])

    hook = register_optimizer_step_pre_hook(look)
    _steps(book, "a wait in each step", out, {})
    hook.remove()


SCENARIOS = {f.__name__: f for f in (diagnostics, masks, tweaks, records, steps, planted)}
