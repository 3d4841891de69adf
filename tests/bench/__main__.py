"""`make bench`: speed against the floor and against others, on this machine, one job at a time.

Ratios within a table are what to read. Writes a section of `tests/bench/RESULTS.md` for each part;
`python -m tests.bench solvers` does that part alone, `--device cuda` on a GPU, in sections of
their own ("solvers, cuda").
"""

from __future__ import annotations

import argparse

from sparsediag.core.device import select_device
from sparsediag.core.process import configure_process
from tests.bench import (
    ablation,
    collapse,
    curvature,
    landscape,
    methods,
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", allow_abbrev=False)
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; all if none")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    try:
        device = select_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    configure_process()
    for part in options.parts or PARTS:
        name = part if device.type == "cpu" else f"{part}, {device}"
        lines = [f"Measured on {results.hardware(device)}.", "", *PARTS[part](device)]
        results.write(name, lines)
        print(f"## {name}\n", *lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
