"""`make bench`: speed against the floor and against others, on this machine, one job at a time.

Ratios within a table are what to read. Writes a section of `tests/bench/RESULTS.md` for each part
of `SPEED`; an interrupted call goes on with the part that it was at, and that with the row if it
is a long one. `python -m tests.bench solvers` does that part alone, `--device cuda` on a GPU, in
sections of their own ("solvers, cuda").
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime

from sparsediag.core.device import select_device
from sparsediag.core.process import configure_process
from tests.bench import (
    ablation,
    collapse,
    curvature,
    landscape,
    methods,
    nets,
    operators,
    results,
    scoring,
    sizes,
    speed,
    training,
    watch,
)

PARTS = {
    "speed": speed.section,
    "sizes": sizes.section,
    "products": curvature.product_section,
    "warm": curvature.warm_section,
    "solvers": curvature.solver_section,
    "landscape": landscape.section,
    "training": training.section,
    "scoring": scoring.section,
    "methods": methods.section,
    "ablation": ablation.section,
    "collapse": collapse.section,
    "watch": watch.section,
    "operators": operators.section,
}
SPEED = ("speed", "sizes", "products", "warm", "solvers", "landscape", "scoring", "watch")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", allow_abbrev=False)
    parser.add_argument(
        "parts", nargs="*", help=f"some of {', '.join(PARTS)}; {', '.join(SPEED)} if none"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    try:
        device = select_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    configure_process()
    finished = nets.KEPT / f"parts-{device.type}.json"  # of an interrupted call for all
    done = json.loads(finished.read_text()) if finished.exists() and not options.parts else []
    for part in options.parts or [part for part in SPEED if part not in done]:
        name = part if device.type == "cpu" else f"{part}, {device}"
        body, now = PARTS[part](device), f"{datetime.now():%d %B %Y, %H:%M}"
        lines = [f"Measured on {results.hardware(device)}; finished {now}.", "", *body]
        results.write(name, lines)
        print(f"## {name}\n", *lines, sep="\n", flush=True)
        if not options.parts:
            done.append(part)
            finished.parent.mkdir(parents=True, exist_ok=True)
            finished.write_text(json.dumps(done))
    if not options.parts:
        finished.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
