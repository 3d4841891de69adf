"""`python -m training RUN.toml [--optim.lr 0.05] [--seed 3]`: train one run."""

from __future__ import annotations

import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparsediag.core.errors import ArgumentParser
from sparsediag.core.process import configure_process

USAGE = """python -m training RUN [--KEY VALUE ...] [--seeds N] [--jobs N] [--out FOLDER]

  RUN            a run file (TOML), or the name of a recipe
  --KEY VALUE    any key of the run file, see below: --seed 3 --optim.lr 0.05
                 (a list of values, here or in the file, is a sweep)
  --seeds N      train N runs with consecutive seeds
  --jobs N       runs at a time; they share the cores, or the GPU (default: 1)
  --engine NAME  local, or ray: the jobs run on a Ray cluster (default: local)
  --out FOLDER   write to runs/<id>/ in this folder (default: out)
  --device NAME  auto, cpu, cuda or cuda:N (default: auto)
  --quiet        show no progress
  --plugin FILE  load a Python file with masks or tweaks of your own
  --force        train again what is finished; the older folder stays until the
                 new one is finished, and then moves to replaced/ in --out
  --json         print one JSON object with the summary of each run
  --debug        show the traceback of an error

{catalogue}

{keys}
"""


def parse_changes(words: list[str]) -> dict[str, Any]:
    """Return `--a.b 1 --c=x` as dotted keys and values, which are TOML if possible, else strings.

    >>> parse_changes(["--optim.lr", "0.05", "--data=mnist"])
    {'optim.lr': 0.05, 'data': 'mnist'}
    """
    changes: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            raise ValueError(f"'{word}': need --KEY VALUE after the run file")
        key, equals, value = word[2:].partition("=")
        value = value if equals else next(rest, "")
        if not (equals or value):
            raise ValueError(f"--{key} needs a value")
        try:
            changes[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            changes[key] = value
    return changes


def main(argv: list[str] | None = None) -> int:
    """Train a run for one or several seeds; print the test accuracy and the best checkpoints."""
    # argparse, since the keys of a run file are not known before it is read
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("run", nargs="?")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--plugin", action="append", default=[])
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--debug", action="store_true")
    configure_process()
    words = sys.argv[1:] if argv is None else argv
    options, rest = parser.parse_known_args(words)
    try:
        from sparsediag.core.errors import unknown_name
        from training.executors import ENGINES
        from training.keys import help_text
        from training.listing import catalogue
        from training.outcome import describe_outcome, summarise_all
        from training.plan import describe_plan
        from training.plugins import load_plugins
        from training.progress import fit_all
        from training.setup import finished
        from training.sweep import load_runs

        load_plugins(options.plugin)
        if options.help or not options.run:
            print(USAGE.format(catalogue=catalogue(), keys=help_text()))
            return 0 if options.help else 2
        if rest and words.index(rest[0]) < words.index(options.run):
            raise ValueError(f"'{rest[0]}' came before the run; write the run file or recipe first")
        if min(options.seeds, options.jobs) < 1:
            raise ValueError(f"--seeds {options.seeds} --jobs {options.jobs}: need 1 or more")
        if options.engine not in ENGINES:
            raise ValueError(unknown_name("engine", options.engine, ENGINES))
        runs = load_runs(options.run, parse_changes(rest))
        if options.seeds > 1 and len({run.seed for run in runs}) > 1:
            raise ValueError(f"--seeds {options.seeds}: the run file lists seeds; leave out one")
        runs = [replace(run, seed=run.seed + i) for i in range(options.seeds) for run in runs]
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
        for name, error in errors.items():
            if options.debug:
                raise error
            print(f"{name}: {error}" if len(runs) > 1 else error, file=sys.stderr)
        for run in runs:
            if errors and run.id not in errors and not finished(options.out / "runs" / run.id):
                print(f"{run.id}: not trained, since one that it needs failed", file=sys.stderr)
        return 2 if errors else 0
    except (ValueError, OSError) as error:
        if options.debug:
            raise
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
