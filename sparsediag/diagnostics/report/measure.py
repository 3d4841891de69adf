"""Run every diagnostic of a report on every network, and keep each result as soon as it is done."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sparsediag.core.errors import CheckpointError
from sparsediag.core.fingerprint import fingerprint
from sparsediag.core.version import __version__
from sparsediag.diagnostics import DIAGNOSTICS, load_diagnostic
from sparsediag.diagnostics.census import Census, census
from sparsediag.diagnostics.comparison import Comparison, compare
from sparsediag.diagnostics.recording import Recording
from sparsediag.diagnostics.report.nets import Net
from sparsediag.diagnostics.result import Result
from sparsediag.diagnostics.traits import InReport, traits_of

Progress = Callable[[int, int], None]
R = TypeVar("R", bound=Result)
ALL = "the comparison"  # takes the place of a network's name in messages about all of them


@dataclass(frozen=True, eq=False)
class Measured:
    """Results of a report; a network for which a diagnostic failed is missing there.

    Attributes:
        nets: The networks, by name.
        results: Diagnostic -> name of the network -> result.
        masks: The masks of all networks in one census, if they cover the same weights.
        comparison: Their landscapes in one comparison, if their axes are the same.
        failed: Diagnostic -> name of the network -> reason.
        recording: Rows that were written while networks trained.
    """

    nets: dict[str, Net]
    results: dict[str, dict[str, Any]]
    masks: Census | None
    comparison: Comparison | None
    failed: dict[str, dict[str, str]]
    recording: Recording | None = None

    def of(self, kind: type[R]) -> dict[str, R]:
        """Return the results of one class, by the name of the network."""
        return self.results.get(kind.__name__.lower(), {})

    def of_net(self, name: str) -> dict[str, Result]:
        """Return the results of one network, by diagnostic."""
        return {what: by_net[name] for what, by_net in self.results.items() if name in by_net}

    def failures(self) -> list[str]:
        """Return a line for each reason why results are missing, and each that did not converge."""
        lists: dict[str, list[str]] = {}
        for what, reasons in self.failed.items():
            for name, reason in reasons.items():
                lists.setdefault(f"{name}: {reason}", []).append(what)
        missing = [f"not in the report: {', '.join(w)} of {line}" for line, w in lists.items()]
        return missing + [
            f"{what} of {name} did not converge: see the findings"
            for what, by_net in self.results.items()
            for name, result in by_net.items()
            if not result.reliable
        ]


def measure(
    nets: Mapping[str, Net],
    *,
    points: int,
    top: int,
    folder: Path,
    progress: Progress | None = None,
) -> Measured:
    """Run every diagnostic that has a part in the report on every network.

    A diagnostic that fails leaves a message in place of a result.

    Args:
        nets: The networks, by name.
        points: Grid points along each direction of a landscape, and along each eigenvector.
        top: Number of eigenpairs.
        folder: Folder for finished results; those in it are not computed again.
        progress: Called as `progress(passes, all)`.
    """
    parts = {name: traits_of(load_diagnostic(name)).report for name in DIAGNOSTICS}
    costs = {"census": 1} | {n: part.cost(points, top) for n, part in parts.items() if part}
    results: dict[str, dict[str, Any]] = {what: {} for what in costs}
    failed: dict[str, dict[str, str]] = {what: {} for what in (*costs, "masks", "comparison")}
    done, total = 0, len(nets) * sum(costs.values())
    report_progress = _monotonic(progress)

    for name, net in nets.items():
        finished: dict[str, Result] = {}
        for what, cost in costs.items():
            advance = partial(_advance, report_progress, done, cost, total)
            compute = partial(_count_mask, net, name)
            if what != "census":
                compute = partial(
                    _load_or_compute, what, net, points, top, folder, finished, advance
                )
            result = _attempt(compute, name, failed[what])
            if result:
                finished[what] = results[what][name] = result
            done += cost
            advance(1, 1)

    masks = comparison = None
    if len(results["census"]) > 1:
        masked = {name: nets[name].counted for name in results["census"]}
        built = {name: net.problem.net for name, net in nets.items() if net.problem}
        masks = _attempt(lambda: census(masked, built=built), ALL, failed["masks"])
    if len(landscapes := results["landscape"]) > 1:
        tops = {name: float(one.eigenvalues[0]) for name, one in results["spectrum"].items()}
        comparison = _attempt(lambda: compare(landscapes, tops=tops), ALL, failed["comparison"])
    return Measured(dict(nets), results, masks, comparison, failed)


def _attempt(compute: Callable[[], R], name: str, failed: dict[str, str]) -> R | None:
    """Compute a result; note the reason if it fails, in any way that a foreign network may."""
    try:
        return compute()
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        failed[name] = kind + " ".join(str(error).split())
        return None


def _count_mask(net: Net, name: str) -> Result:
    return census({name: net.counted}, built={name: net.problem.net} if net.problem else None)


def _load_or_compute(
    what: str,
    net: Net,
    points: int,
    top: int,
    folder: Path,
    finished: Mapping[str, Result],
    progress: Progress,
) -> Result:
    """Return a diagnostic of a network, from `folder` if it is there."""
    if net.problem is None:
        raise ValueError(net.reason)
    about = f"{net.problem.digest} {points} {top} {__version__}"
    file = folder / f"{what}-{fingerprint(about, [])[:16]}.npz"
    with suppress(FileNotFoundError, CheckpointError):  # missing, damaged, or of other code
        return Result.load(file)
    function = load_diagnostic(what)
    part = traits_of(function).report or InReport()
    options: dict[str, Any] = {
        "points": points,
        "top": min(top, net.problem.size),
        "progress": progress,
        "resume": file.with_suffix(".points"),
    }
    accepted = inspect.signature(function).parameters
    options = {key: value for key, value in options.items() if key in accepted} | dict(part.options)
    for keyword, other in part.needs.items():
        if other not in finished:
            raise ValueError(f"it needs the {other}, which is missing")
        options[keyword] = finished[other]
    function(net.problem, **options).save(file)
    file.with_suffix(".points").unlink(missing_ok=True)
    return Result.load(file)


def _monotonic(progress: Progress | None) -> Progress:
    """Return a progress function that never goes back, whatever a diagnostic reports."""
    most = 0

    def report(done: int, total: int) -> None:
        nonlocal most
        most = max(most, done)
        if progress:
            progress(most, total)

    return report


def _advance(
    report_progress: Progress, before: int, cost: int, total: int, done: int, number: int
) -> None:
    report_progress(before + cost * min(done, number) // max(number, 1), total)
