"""Measure: every diagnostic of every net of a report, each kept as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sparsediag.core.errors import CheckpointError
from sparsediag.core.fingerprint import fingerprint
from sparsediag.core.problem import Problem
from sparsediag.core.version import __version__
from sparsediag.diagnostics.activations import Activations, activations
from sparsediag.diagnostics.census import Census, census
from sparsediag.diagnostics.comparison import Comparison, compare
from sparsediag.diagnostics.gradflow import Gradflow, gradflow
from sparsediag.diagnostics.landscape import Landscape, landscape
from sparsediag.diagnostics.perturbation import Perturbation, perturbation
from sparsediag.diagnostics.report.nets import Net
from sparsediag.diagnostics.result import Result
from sparsediag.diagnostics.signal import Signal, signal
from sparsediag.diagnostics.spectrum import Spectrum, spectrum

Progress = Callable[[int, int], None]
PROBES, STEPS = 3, 30  # of the spectral density
ALL = "the comparison"  # of several nets, in the place of a name

# what each diagnostic costs, about, in passes of all samples through the net
COSTS: dict[str, Callable[[int, int], int]] = {
    "census": lambda points, top: 1,
    "activations": lambda points, top: 1,
    "gradflow": lambda points, top: 3,
    "signal": lambda points, top: 4,
    "spectrum": lambda points, top: 5 * (10 * top + PROBES * STEPS),
    "perturbation": lambda points, top: top * (points + 27),  # points of the second difference
    "landscape": lambda points, top: points**2,
}


@dataclass(frozen=True, eq=False)
class Measured:
    """Results by the name of the network; a network that failed is missing.

    Attributes:
        nets: What it was found of.
        together: The masks of all nets in one census, where they cover the same weights.
        compared: Their landscapes in one comparison, where their axes are the same.
        failed: Diagnostic -> name -> why it could not be.
    """

    nets: dict[str, Net]
    census: dict[str, Census]
    activations: dict[str, Activations]
    gradflow: dict[str, Gradflow]
    signal: dict[str, Signal]
    spectrum: dict[str, Spectrum]
    perturbation: dict[str, Perturbation]
    landscape: dict[str, Landscape]
    together: Census | None
    compared: Comparison | None
    failed: dict[str, dict[str, str]]

    def results(self, name: str) -> dict[str, Result]:
        """All results of one net, by diagnostic."""
        return {what: getattr(self, what)[name] for what in COSTS if name in getattr(self, what)}


def measure(
    nets: Mapping[str, Net],
    *,
    points: int,
    top: int,
    kept: Path,
    progress: Progress | None = None,
) -> Measured:
    """Run every diagnostic on every net; one that fails leaves its reason instead of a result.

    Args:
        nets: By name.
        points: Grid points along each direction of a landscape, and along each eigenvector.
        top: Number of eigenpairs.
        kept: Folder for what is done; what it holds is not computed again.
        progress: Called as `progress(passes, all)`.
    """
    found: dict[str, dict[str, Any]] = {what: {} for what in COSTS}
    failed: dict[str, dict[str, str]] = {what: {} for what in (*COSTS, "together", "compared")}
    costs = {what: cost(points, top) for what, cost in COSTS.items()}
    done, total = 0, len(nets) * sum(costs.values())
    told = _rising(progress)

    for name, net in nets.items():
        own = partial(_result, net=net, name=name, points=points, top=top, kept=kept)
        for what, cost in costs.items():
            part = partial(_part, told, done, cost, total)
            along = found["spectrum"].get(name)
            _attempt(what, name, found, failed, partial(own, what, along=along, progress=part))
            done += cost
            part(1, 1)

    several: dict[str, dict[str, Any]] = {"together": {}, "compared": {}}
    if len(found["census"]) > 1:
        masks = {name: nets[name].counted for name in found["census"]}
        built = {name: net.problem.net for name, net in nets.items() if net.problem}
        _attempt("together", ALL, several, failed, lambda: census(masks, built=built))
    if len(found["landscape"]) > 1:
        tops = {name: float(one.eigenvalues[0]) for name, one in found["spectrum"].items()}
        _attempt("compared", ALL, several, failed, lambda: compare(found["landscape"], tops=tops))
    together, compared = (several[what].get(ALL) for what in ("together", "compared"))
    joint: dict[str, Any] = {"together": together, "compared": compared, "failed": failed}
    return Measured(**{"nets": dict(nets)} | found | joint)


def _attempt(
    what: str,
    name: str,
    found: dict[str, dict[str, Any]],
    failed: dict[str, dict[str, str]],
    work: Callable[[], Result],
) -> None:
    """Do some work, whose net may be anybody's and fail in any way."""
    try:
        found[what][name] = work()
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        failed[what][name] = kind + " ".join(str(error).split())


def _result(
    what: str,
    *,
    net: Net,
    name: str,
    points: int,
    top: int,
    kept: Path,
    along: Spectrum | None,
    progress: Progress,
) -> Result:
    """Return a diagnostic of a network, from `kept` if it is there."""
    if what == "census":
        built = {name: net.problem.net} if net.problem else None
        return census({name: net.counted}, built=built)
    if net.problem is None:
        raise ValueError(net.reason)
    about = f"{net.problem.digest} {points} {top} {__version__}"
    file = kept / f"{what}-{fingerprint(about, [])[:16]}.npz"
    with suppress(FileNotFoundError, CheckpointError):  # not there, damaged, or of other code
        return Result.load(file)
    unfinished = file.with_suffix(".points")
    _new(what, net.problem, points, top, along, unfinished, progress).save(file)
    unfinished.unlink(missing_ok=True)
    return Result.load(file)


def _new(
    what: str,
    problem: Problem,
    points: int,
    top: int,
    along: Spectrum | None,
    unfinished: Path,
    progress: Progress,
) -> Result:
    if what == "activations":
        return activations(problem, progress=progress)
    if what == "gradflow":
        return gradflow(problem, progress=progress)
    if what == "signal":
        return signal(problem, progress=progress)
    if what == "spectrum":
        density: dict[str, Any] = {"density": True, "probes": PROBES, "steps": STEPS}
        return spectrum(problem, top=min(top, problem.size), progress=progress, **density)
    if what == "perturbation":
        if along is None:
            raise ValueError("there are no eigenvectors to go along")
        return perturbation(problem, top=top, points=points, along=along, progress=progress)
    return landscape(problem, points=points, resume=unfinished, progress=progress)


def _rising(progress: Progress | None) -> Progress:
    """A progress that never falls back, whatever a diagnostic says of its parts."""
    most = 0

    def told(done: int, total: int) -> None:
        nonlocal most
        most = max(most, done)
        if progress:
            progress(most, total)

    return told


def _part(told: Progress, before: int, cost: int, total: int, done: int, whole: int) -> None:
    told(before + cost * min(done, whole) // max(whole, 1), total)
