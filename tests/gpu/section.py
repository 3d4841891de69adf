"""`python -m tests.gpu.section NAME ...`: run one section; started by `__main__.py`.

Rows go to stdout as lines of JSON. Before each, a line {"begun": name} tells what to blame if the
process crashes; {"begun": null} follows the last row. All other output goes to stderr.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import importlib
import json
import os
import time
import traceback
import warnings
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TextIO

import torch

from sparsediag.core.device import select_device
from sparsediag.core.process import configure_process
from tests.gpu.settings import Settings, Skip


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("name")
    parser.add_argument("--device", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--data")
    parser.add_argument("--only", default="*")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    rows = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    faulthandler.enable()
    warnings.simplefilter("ignore")
    configure_process()

    device = select_device(options.device)
    settings = Settings(device, options.dry, options.data, options.out, deadline)
    measure(options.name, settings, rows, only=options.only)


def measure(name: str, settings: Settings, rows: TextIO, *, only: str = "*") -> None:
    """Run the measurements of a section, each in its own try, until time is up.

    Args:
        name: Of the section.
        settings: Device, sizes, data and time limit.
        rows: Where the rows go.
        only: Globs of the names of measurements, separated by semicolons.
    """
    missed: list[str] = []
    module = importlib.import_module(f"tests.gpu.{name}")
    for what, work in module.measurements(settings):
        if not any(fnmatchcase(what, glob) for glob in only.split(";")):
            continue
        if settings.left <= 0:
            missed.append(what)
            continue
        _tell(rows, {"begun": what})
        start = time.perf_counter()
        try:
            row = {"status": "ok", **work()}
        except Skip as reason:
            row = {"status": "skipped", "note": str(reason)}
        except Exception as error:  # one that fails must not take the others with it
            traceback.print_exc()
            told = " ".join(str(error).split())[:300]
            row = {"status": "error", "note": f"{type(error).__name__}: {told}"}
        _tell(rows, {"what": what, **row, "took": round(time.perf_counter() - start, 2)})
        _free(settings.cuda)
    if missed:
        first, told = ", ".join(missed[:5]), f"{len(missed)} measurements"
        _tell(rows, {"what": told, "status": "cut", "note": f"out of time: {first}, ..."})
    _tell(rows, {"begun": None})


def _tell(rows: TextIO, row: dict[str, object]) -> None:
    rows.write(json.dumps(row, default=float) + "\n")
    rows.flush()


def _free(cuda: bool) -> None:
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
