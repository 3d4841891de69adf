"""The work of `python -m training`: load the runs, train them, and print what came out."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sparsediag.checkpoint.labels import run_labels
from sparsediag.core.errors import unknown_name
from training.config import Run
from training.executors import ENGINES
from training.outcome import describe_outcome, summarise_all
from training.plan import describe_plan
from training.progress import fit_all
from training.setup import finished
from training.sweep import load_runs


def train(options: Namespace, changes: Mapping[str, Any]) -> int:
    """Train the runs of the command line; print their outcome, and return the exit code.

    Args:
        options: The options, as `training.__main__.parser` gives them.
        changes: Keys of the run file that were given on the command line.

    Raises:
        ValueError: If an option or a run is invalid, or the only run fails.
    """
    runs = _load(options, changes)
    if len(runs) > 1 and not options.quiet and not options.force:
        print(describe_plan(runs, options.out, jobs=options.jobs), file=sys.stderr)
    errors = fit_all(
        runs,
        out=options.out,
        device=options.device,
        jobs=options.jobs,
        engine=options.engine,
        quiet=options.quiet,
        force=options.force,
    )
    folders = [options.out / "runs" / run.id for run in runs if run.id not in errors]
    folders = [folder for folder in folders if finished(folder)]
    if options.json:
        print(json.dumps(summarise_all(folders)))
    elif folders:
        print(describe_outcome(folders), file=sys.stderr)
        print(*(folder / "best.pt" for folder in folders), sep="\n")
    if errors and options.debug:
        raise next(iter(errors.values()))
    print("\n".join(_failures(runs, errors, options)), file=sys.stderr, end="\n" if errors else "")
    return 2 if errors else 0


def _load(options: Namespace, changes: Mapping[str, Any]) -> list[Run]:
    """Return the runs of the file, for all seeds; check the options."""
    if min(options.seeds, options.jobs) < 1:
        raise ValueError(f"--seeds {options.seeds} --jobs {options.jobs}: need 1 or more")
    if options.engine not in ENGINES:
        raise ValueError(unknown_name("engine", options.engine, ENGINES))
    runs = load_runs(options.run, changes)
    if options.seeds > 1 and len({run.seed for run in runs}) > 1:
        raise ValueError(f"--seeds {options.seeds}: the run file lists seeds; leave out one")
    return [replace(run, seed=run.seed + i) for i in range(options.seeds) for run in runs]


def _failures(
    runs: Sequence[Run], errors: Mapping[str, BaseException], options: Namespace
) -> list[str]:
    """Return a line for each run that failed, or that needs one that failed."""
    if len(runs) == 1:
        return [str(error) for error in errors.values()]
    labels = dict(zip((run.id for run in runs), run_labels([r.table() for r in runs]), strict=True))
    names = {run.id: f"{labels[run.id]}, {run.id}" for run in runs}
    lines = [f"{names.get(failed, failed)}: {error}" for failed, error in errors.items()]
    waiting = [run.id for run in runs if run.id not in errors] if errors else []
    return lines + [
        f"{names[name]}: not trained, since one that it needs failed"
        for name in waiting
        if not finished(options.out / "runs" / name)
    ]
