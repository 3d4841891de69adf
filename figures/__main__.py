"""`python -m figures tost/fig09a`: train and measure what is missing, draw, and report."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from figures import cost, page, registry
from figures.plan import Plan, plan
from figures.scales import SCALES, Scale
from sparsediag.core.errors import ArgumentParser, unknown_name
from sparsediag.data.datasets import DATASETS
from sparsediag.plotting import terminal
from training.executors import ENGINES, max_jobs
from training.plugins import load_plugins
from training.progress import download_data

SECONDS_A_PAGE = 30.0  # between two versions of the page, while items are finished


def main(argv: list[str] | None = None) -> int:
    """Draw the items; return 1 if one could not be made, 2 if an argument is invalid."""
    parser = ArgumentParser(
        prog="python -m figures",
        description="Every figure and table of three papers, beside the papers' own numbers.",
        allow_abbrev=False,
    )
    parser.add_argument("items", nargs="*", help="such as tost/fig09a, or a paper (default: all)")
    parser.add_argument("--only", nargs="+", default=[], help="the same", metavar="ITEM")
    parser.add_argument("--scale", default="laptop", help=f"one of {', '.join(SCALES)}")
    parser.add_argument("--data", help="replaces every data set: a name, or folder:PATH")
    parser.add_argument(
        "--jobs", type=int, help="processes (default: one per core, at most 4 on each GPU)"
    )
    parser.add_argument(
        "--minutes", type=float, help="start nothing new after so many; call again to go on"
    )
    parser.add_argument("--engine", default="local", help=f"one of {', '.join(ENGINES)}")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to")
    parser.add_argument("--plan", action="store_true", help="only list what is missing")
    parser.add_argument(
        "--dry-run", action="store_true", help="only count trainings and estimate GPU hours"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--plugin", action="append", default=[], help="a figure of yours, FILE.py: own/FILE"
    )
    options = parser.parse_args(argv)
    try:
        load_plugins(options.plugin)
        return make(*_validate(options), options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues from here", file=sys.stderr)
        return 130


def _validate(options: argparse.Namespace) -> tuple[list[str], Scale]:
    """Check the options; return the wanted items and the scale."""
    if options.scale not in SCALES:
        raise ValueError(unknown_name("scale", options.scale, SCALES))
    if options.engine not in ENGINES:
        raise ValueError(unknown_name("engine", options.engine, ENGINES))
    if options.jobs is None:
        options.jobs = max_jobs()
    if options.jobs < 1:
        raise ValueError(f"--jobs {options.jobs}: need 1 or more")
    if options.minutes is not None and not options.minutes > 0:
        raise ValueError(f"--minutes {options.minutes:g}: need more than 0")
    wanted: list[str] = []
    for word in [*options.items, *options.only]:
        matching = [n for n in registry.names() if word in (n, n.partition("/")[0])]
        if not matching:
            papers = {name.partition("/")[0] for name in registry.names()}
            raise ValueError(unknown_name("figure", word, [*registry.names(), *papers]))
        wanted += matching
    scale = SCALES[options.scale]
    if options.data and scale.is_paper:
        raise ValueError(f"--data {options.data}: scale 'paper' trains on the papers' own data")
    if options.data:
        if options.data not in DATASETS and not options.data.startswith("folder:"):
            raise ValueError(unknown_name("data", options.data, [*DATASETS, "folder:PATH"]))
        name = f"{scale.name}-{options.data.rstrip('/').rpartition('/')[2].removeprefix('folder:')}"
        scale = replace(scale, name=name, data=dict.fromkeys(scale.data, options.data))
    return list(dict.fromkeys(wanted)) or registry.at_scale(scale), scale


def make(wanted: Sequence[str], scale: Scale, options: argparse.Namespace) -> int:
    """Train and measure what is missing for the wanted items, and draw them."""
    out: Path = options.out
    if options.dry_run:
        print(cost.summary(wanted, scale))
        return 0
    todo = plan(wanted, scale, out)
    if options.plan:
        print(cost.listing(wanted, todo, scale, out))
        return 0
    if scale.is_paper and todo.runs:
        print(cost.summary(wanted, scale))
    is_complete = list(wanted) == registry.at_scale(scale)
    if is_complete:
        page.write(scale, out)  # fills as items are finished
    errors, num_left = _execute(todo, scale, options, updates_page=is_complete)
    for name, error in errors.items():
        print(f"{name} failed: {error}", file=sys.stderr)
    failed = [name for name in wanted if not registry.is_drawn(name, scale, out)]
    incomplete = [n for n in wanted if n not in failed and registry.missing(n, scale, out)]
    if is_complete:
        page.write(scale, out)
    num_drawn = len(set(todo.pictures) - set(failed))
    print(f"{num_drawn} drawn, {len(wanted) - len(todo.pictures)} up to date, in {out / 'figures'}")
    if num_left and not errors:
        print(f"time is up: {num_left:,} tasks are left; the same command goes on from here")
        return 0
    for name in failed:
        print(f"{name} could not be drawn", file=sys.stderr)
    for name in incomplete:
        print(f"{name} is drawn without the measurements that failed", file=sys.stderr)
    return 1 if failed or incomplete or errors else 0


def _execute(
    todo: Plan, scale: Scale, options: argparse.Namespace, *, updates_page: bool
) -> tuple[dict[str, BaseException], int]:
    """Run all tasks with one progress bar; return the errors by task, and how many are left."""
    tasks = todo.work.tasks
    if not tasks:
        return {}, 0
    weights = {name: cost.weight(name, todo) for name in tasks}
    mean_weight = sum(weights.values()) / len(weights)
    ended: set[str] = set()
    next_page = time.monotonic() + SECONDS_A_PAGE

    def on_done(name: str) -> None:
        nonlocal next_page
        ended.add(name)
        bars.advance(bar, weights[name] / mean_weight)
        if updates_page and name.startswith("draw ") and time.monotonic() > next_page:
            page.write(scale, options.out)
            next_page = time.monotonic() + SECONDS_A_PAGE

    with terminal.progress_bars(quiet=options.quiet) as bars:
        bar = bars.add_task(f"{scale.name} figures", total=len(tasks))
        download_data(todo.runs.values())
        errors = todo.work.run(
            jobs=options.jobs,
            engine=options.engine,
            on_done=on_done,
            seconds=60 * options.minutes if options.minutes else math.inf,
        )
    num_left = len(tasks) - len(ended)
    for name in todo.pictures:  # those that lack a measurement
        waits = num_left and not registry.results(name, scale, options.out)
        if f"draw {name}" in errors or (waits and not errors):
            continue
        if not registry.is_drawn(name, scale, options.out):
            try:
                registry.draw(name, scale, options.out)
            except Exception as error:  # the other pictures are still drawn
                errors[f"draw {name}"] = error
    return errors, num_left


if __name__ == "__main__":
    sys.exit(main())
