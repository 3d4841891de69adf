"""`python -m training RUN.toml [--optim.lr 0.05] [--seed 3]`: train one run."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

from sparsediag.core.errors import ArgumentParser
from sparsediag.core.process import CLOSED_PIPE, configure_process, reader_is_gone

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


def parser() -> ArgumentParser:
    """Return the parser of all options but the keys of a run file, which plug-ins may add to."""
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
    return parser


def main(argv: list[str] | None = None) -> int:
    """Train a run for one or several seeds; print the test accuracy and the best checkpoints."""
    configure_process()  # before torch is imported
    words = sys.argv[1:] if argv is None else argv
    options, rest = parser().parse_known_args(words)
    try:
        from training.command import train
        from training.keys import help_text
        from training.listing import catalogue
        from training.plugins import load_plugins

        load_plugins(options.plugin)
        if options.help or not options.run:
            print(USAGE.format(catalogue=catalogue(), keys=help_text()))
            return 0 if options.help else 2
        if rest and words.index(rest[0]) < words.index(options.run):
            raise ValueError(f"'{rest[0]}' came before the run; write the run file or recipe first")
        return train(options, parse_changes(rest))
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            return CLOSED_PIPE
        if options.debug:
            raise
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
