"""`python -m tests.gpu`: run the sections; usage in the docstring of the package."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import tests.gpu
from sparsediag.core.device import select_device

OUT = Path("out/gpu")
SECONDS, DRY_SECONDS = 440, 170
GRACE = 5  # seconds from the end of a section's time to the end of its process
SHARES = {  # of the time; what a section leaves over goes to the next one
    "ceilings": 20,
    "smoke": 45,
    "checks": 120,
    "throughput": 105,
    "products": 45,
    "top": 45,
    "landscapes": 30,
    "trainings": 30,
}
Row = dict[str, Any]


def main(argv: list[str] | None = None) -> int:
    """Run the sections; exit code 1 if a row is wrong or an error, 2 if there is no GPU."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu",
        description=tests.gpu.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("sections", nargs="*", help=f"some of {', '.join(SHARES)}; all if none")
    parser.add_argument("--seconds", type=float, help=f"in all ({SECONDS}; dry {DRY_SECONDS})")
    parser.add_argument("--only", default="*", help="globs of what to measure, as 'mask: r*;mlp'")
    parser.add_argument("--data", help="folder:PATH of images of 3 x 32 x 32 pixels")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on a CPU by default")
    parser.add_argument("--device", help="cuda, cuda:N or cpu (cuda; dry cpu)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write to")
    options = parser.parse_args(argv)
    names = options.sections or list(SHARES)
    if unknown := set(names) - set(SHARES):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SHARES)}")
    options.device = options.device or ("cpu" if options.dry else "cuda")
    try:
        select_device(options.device)
    except ValueError as error:
        print(f"{error} Without a GPU, --dry tries everything at tiny sizes.", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    report = Report(options.out / "results.jsonl")
    began = time.monotonic()
    seconds = options.seconds or (DRY_SECONDS if options.dry else SECONDS)
    share, whole = 0.0, sum(SHARES[name] for name in names)
    for name in names:
        share += SHARES[name] / whole
        _section(name, began + share * seconds, options, report)
    counts = ", ".join(f"{n} {status}" for status, n in report.counts.items())
    print(f"{counts} in {time.monotonic() - began:.0f} s: {report.file}")
    return 1 if {"wrong", "error"} & report.counts.keys() else 0


class Report:
    """Writes rows to a file and to the terminal as they come.

    Args:
        file: Overwritten.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.counts = file, dict[str, int]()
        file.write_text("")

    def add(self, row: Row) -> None:
        """Write a row."""
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.counts[row["status"]] = self.counts.get(row["status"], 0) + 1
        numbers = [f"{k} {shown(v)}" for k, v in row.items() if k not in HIDDEN]
        mark = "" if row["status"] == "ok" else f"{row['status'].upper()} "
        print(f"  {row['what']:44} {mark}{row.get('note', '')}{'  '.join(numbers)}", flush=True)


HIDDEN = ("section", "what", "status", "note", "took")


def shown(value: Any) -> str:
    """Format a number for people."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _section(name: str, deadline: float, options: argparse.Namespace, report: Report) -> None:
    """Run a section in its own process; it is killed `GRACE` seconds after its time."""
    left = deadline - time.monotonic()
    print(f"{name}: {left:.0f} s", flush=True)
    words = [name, "--device", options.device, "--out", str(options.out)]
    words += ["--seconds", f"{left - GRACE:.1f}", *(["--dry"] if options.dry else [])]
    words += ["--only", options.only]
    words += ["--data", options.data] if options.data else []
    log = options.out / f"{name}.log"
    begun: list[str | None] = [""]  # what is being measured; None when all has been

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            row = json.loads(line)
            if "begun" in row:
                begun[0] = row["begun"]
            else:
                report.add({"section": name, **row})
                begun[0] = ""

    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.section", *words],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if options.device == "cpu" else {})},
            text=True,
            start_new_session=True,
        )
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            code: int | None = process.wait(max(1.0, left))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
            reader.join(5)
    if code is None and begun[0] is None:
        return  # all rows are there; only its exit was slow
    if code != 0:
        what = "ran out of time" if code is None else _ended(code)
        where = f" in '{begun[0]}'" if begun[0] else ""
        last = log.read_text().strip().splitlines()[-1:] if code else []
        note = "; ".join([what + where, *last])
        report.add({"section": name, "what": "the section", "status": "error", "note": note})


def _ended(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a section and every process it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
