"""Check every diagnostic on the device against the CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sparsediag as sd
from sparsediag.checkpoint.run_folder import checkpoints
from tests.gpu.settings import Measurements, Row, Settings, Skip, check

BOUND = 1e-2  # of the largest difference, in units of the largest number
Folder = Callable[[], Path]
Problems = list[sd.Problem]  # of each checkpoint of a run, the last one last
WAYS: dict[str, Callable[[Problems, Folder, Settings], Any]] = {
    "spectrum": lambda p, *_: sd.spectrum(p[-1], top=3, density=True, probes=2).eigenvalues,
    "spectrum, gauss-newton": lambda p, *_: (
        sd.spectrum(p[-1], top=2, matrix="gauss-newton").eigenvalues
    ),
    "spectrum, filter norms": lambda p, *_: sd.spectrum(p[-1], top=2, norm="filter").eigenvalues,
    "blocks": lambda p, *_: sd.blocks(p[-1], by="stage").eigenvalues,
    "trace": lambda p, *_: sd.trace(p[-1], tol=0.05).trace,
    "activations": lambda p, *_: sd.activations(p[-1]).zeros,
    "gradflow": lambda p, *_: sd.gradflow(p[-1]).flow,
    "signal": lambda p, *_: sd.signal(p[-1]).rms,
    "landscape": lambda p, *_: sd.landscape(p[-1], points=3).loss,
    "landscape, bfloat16": lambda p, *_: sd.landscape(p[-1], points=3, precision="bfloat16").loss,
    "landscape, between nets": lambda p, *_: sd.landscape(sd.interpolate(p[-2:]), points=3).loss,
    "landscape, a run": lambda p, *_: (
        sd.landscape(sd.pca_plane(p, [str(i) for i in range(len(p))]), points=3).loss
    ),
    "comparison": lambda p, *_: (
        sd.compare({str(i): sd.landscape(one, points=5) for i, one in enumerate(p[-2:])}).rises
    ),
    "inputscape": lambda p, *_: sd.inputscape(p[-1], count=4, points=3).loss,
    "perturbation": lambda p, *_: sd.perturbation(p[-1], points=3).loss,
    "trajectory": lambda _, folder, settings: (
        sd.trajectory(folder(), load=_loader(settings), top=1).eigenvalues
    ),
    "course": lambda _, folder, settings: (
        sd.course(folder(), "gradflow", load=_loader(settings)).values
    ),
    "overlap": lambda p, *_: sd.overlap(sd.spectrum(p[-2], top=1), sd.spectrum(p[-1], top=1)),
}
ROUGH = {"landscape, bfloat16": 0.1, "trace": 0.2}  # an estimate within its own tolerance


def measurements(settings: Settings, folder: Folder) -> Measurements:
    """Yield all of them; `folder` returns the folder of a sparse run with several checkpoints."""
    both = (settings, replace(settings, device=torch.device("cpu")))
    for name, way in WAYS.items():
        yield (
            f"diagnostic: {name}",
            lambda way=way, name=name: compared(way, both, folder, ROUGH.get(name, BOUND)),
        )
    yield "diagnostic: landscape, two processes", lambda: apart(settings, folder())
    yield "diagnostic: census", lambda: census(folder())
    yield "diagnostic: report", lambda: report(settings, folder())


def compared(
    way: Callable[..., Any], both: tuple[Settings, Settings], folder: Folder, bound: float
) -> Row:
    found = []
    for settings in both:
        load = _loader(settings)
        problems = [load(sd.Checkpoint.load(file)) for file in checkpoints(folder())]
        found.append(np.nan_to_num(np.asarray(way(problems, folder, settings), dtype=float)))
    here, there = found
    off = float(np.abs(here - there).max() / max(np.abs(there).max(), 1e-30))
    return check({"error": off}, **{f"within_{bound}": off <= bound})


def apart(settings: Settings, folder: Path) -> Row:
    """Compare a landscape by two processes that share the device with that by one."""
    if settings.dry:
        raise Skip("processes take seconds to start; the suite has it")
    problem = _loader(settings)(sd.Checkpoint.load(folder / "last.pt"))
    one, two = (sd.landscape(problem, points=5, jobs=jobs).loss for jobs in (1, 2))
    off = float(np.abs(one - two).max() / np.abs(one).max())
    return check({"error": off}, within_1e_6=off <= 1e-6)


def census(folder: Path) -> Row:
    kept = sd.Checkpoint.load(folder / "last.pt")
    found = sd.census({"last": kept})
    return check({}, all_weights_counted=int(found.alive.sum()) == kept.mask.alive)


def report(settings: Settings, folder: Path) -> Row:
    with tempfile.TemporaryDirectory(dir=settings.out) as out:
        page = sd.report(
            folder / "last.pt",
            out=Path(out, "page.html"),
            points=3,
            top=1,
            images=settings.size(500, 32),
            device=str(settings.device),
        )
        return {"KB": page.stat().st_size // 1024}


def _loader(settings: Settings) -> Callable[[sd.Checkpoint], sd.Problem]:
    images = settings.size(256, 32)
    return lambda kept: kept.problem(images=images, device=str(settings.device))
