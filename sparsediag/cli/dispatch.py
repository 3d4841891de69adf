"""Turn a command line into a job: which networks are looked at together, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sparsediag import diagnostics
from sparsediag.checkpoint.checkpoint import Checkpoint
from sparsediag.checkpoint.labels import short_labels
from sparsediag.checkpoint.run_folder import checkpoints
from sparsediag.core.problem import Problem
from sparsediag.diagnostics.comparison import Comparison, compare
from sparsediag.diagnostics.course import WORK, course
from sparsediag.diagnostics.landscape import landscape
from sparsediag.diagnostics.spectrum import spectrum
from sparsediag.diagnostics.trajectory import trajectory
from sparsediag.surfaces.interpolation import interpolate, pca_plane

Load = Callable[..., Problem]  # of a checkpoint, and its name where there are several


@dataclass(frozen=True)
class Job:
    """A diagnostic of one net, of a run, or of several nets.

    Attributes:
        work: Makes the result of `subject`, with the diagnostic's options.
        subject: A problem, a plane, files or a folder.
        out: The result's file, unless another one is asked for.
        long: Whether the work is kept while it goes on.
        checkpoint: That of the net, where there is one.
    """

    work: Callable[..., Any]
    subject: Any
    out: Path
    long: bool = False
    checkpoint: Checkpoint | None = None


def job(
    name: str, files: list[Path], load: Load, given: dict[str, Any], *, shared: bool = False
) -> Job:
    """Return the job that `sparsediag NAME FILES` describes.

    Args:
        name: A diagnostic.
        files: Checkpoints, or the folder of a run.
        load: Makes the problem of a checkpoint; gets its name too where there are several.
        given: The options that were typed.
        shared: Draw several nets each by itself and compare them.

    Raises:
        ValueError: If the diagnostic cannot take a folder, so many nets, or an option with them.
    """
    first, diagnostic, long = files[0], diagnostics.diagnostic(name), name == "landscape"
    part = f"-{given['shard'].replace('/', 'of')}" if given.get("shard") else ""
    if shared:
        if len(files) < 2 or given.get("shard"):
            raise ValueError("--shared compares whole landscapes of two checkpoints or more")
        out = first.with_name(f"{first.stem}-comparison.npz")
        return Job(partial(_shared, load=load), files, out, long)
    if first.is_dir():
        if name not in ("spectrum", "landscape", *WORK) or len(files) > 1:
            raise ValueError(f"{first} is a folder; {name} needs one checkpoint of it")
        if name in WORK:
            work = partial(course, diagnostic=name, load=load)
            return Job(work, first, first / f"{name}.npz")
        if name == "spectrum":
            return Job(partial(trajectory, load=load), first, first / "spectrum.npz", long=True)
        _only(given, "a run")
        kept = checkpoints(first)
        stems = [file.stem for file in kept]
        nets = _loaded(kept, stems, load)
        dims = given.pop("dims", 2)
        plane = pca_plane(nets, stems, dims=max(1, min(dims, len(nets) - 1)))
        return Job(diagnostic, plane, first / f"landscape{part}.npz", long)
    if len(files) == 1:
        out = first.with_name(f"{first.stem}-{name}{part}.npz")
        checkpoint = Checkpoint.load(first)
        return Job(diagnostic, load(checkpoint), out, long, checkpoint)
    if name != "landscape":
        raise ValueError(f"{len(files)} checkpoints came; {name} needs one")
    _only(given, "several nets", "dims")
    told = short_labels(files)
    plane = interpolate(_loaded(files, told, load), names=told)
    return Job(diagnostic, plane, first.with_name(f"{first.stem}-between{part}.npz"), long)


def _loaded(files: list[Path], names: list[str], load: Load) -> list[Problem]:
    return [load(Checkpoint.load(f), name) for f, name in zip(files, names, strict=True)]


def _only(given: dict[str, Any], nets: str, *more: str) -> None:
    """Refuse options of a plane through one net where there are more."""
    for option in ("axes", "norm", "vectors", "lines", "seed", *more):
        if option in given:
            raise ValueError(f"--{option} does not apply to a plane through {nets}; leave it out")


def tables(
    name: str, files: list[Path], shared: bool, *, dims: int = 2, lines: int = 1, **_: Any
) -> tuple[str, ...]:
    """Kinds of tables that the result can be written as."""
    if name != "landscape" or shared:
        return ()
    return ("csv", "vtk") if dims == 2 and lines == 1 and len(files) != 2 else ("csv",)


def _shared(
    files: list[Path],
    *,
    load: Load,
    resume: Path,
    progress: Callable[[int, int], None],
    **options: Any,
) -> Comparison:
    """Landscapes of several nets on the same directions and axes, compared."""
    found, tops = {}, {}
    for i, (name, file) in enumerate(zip(short_labels(files), files, strict=True)):
        problem = load(Checkpoint.load(file), name)
        found[name] = landscape(
            problem,
            resume=resume_path(resume, i),
            progress=partial(_over, progress, i, len(files)),
            **options,
        )
        tops[name] = float(spectrum(problem, top=1, tol=1e-2).eigenvalues[0])
    return compare(found, tops=tops)


def expected_loss(checkpoint: Checkpoint, *, split: str | None, **asked: Any) -> float:
    """The loss that the training recorded for a whole split, NaN where something else is asked."""
    row = checkpoint.history[-1] if checkpoint.history else {}
    key = {"validation": "val_loss", "test": "test_loss"}.get(split or "train", "")
    other = asked["images"] != 0 or any(asked[option] for option in ("data", "loss", "mask"))
    return float("nan") if other else float(row.get(key, "nan"))


def resume_path(resume: Path, net: int) -> Path:
    """The file that keeps the points of one of several nets."""
    return resume.with_name(f"{resume.name}-{net}")


def _over(
    progress: Callable[[int, int], None], before: int, nets: int, done: int, total: int
) -> None:
    progress(before * total + done, nets * total)
