"""`make bench`: speed against the floor and against others, on this machine, one job at a time.

Ratios within a table are what to read. Writes a section of `tests/bench/RESULTS.md` for each part;
`python -m tests.bench solvers` does that part alone.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import torch

from sparsediag.process import settle
from tests.bench import ablation, collapse, curvature, landscape, methods, scoring, speed, training

RESULTS = Path(__file__).parent / "RESULTS.md"
PARTS = {
    "speed": speed.section,
    "products": curvature.product_section,
    "warm": curvature.warm_section,
    "solvers": curvature.solver_section,
    "landscape": landscape.section,
    "training": training.section,
    "scoring": scoring.section,
    "methods": methods.section,
    "ablation": ablation.section,
    "collapse": collapse.section,
}


def main(asked: list[str]) -> None:
    settle()
    kept = sections(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in asked or PARTS:
        kept[part] = "\n".join([f"Measured on {hardware()}.", "", *PARTS[part]()])
        text = "\n\n".join(f"## {name}\n\n{kept[name]}" for name in PARTS if name in kept)
        RESULTS.write_text(f"# Benchmarks\n\nWritten by `make bench`.\n\n{text}\n")
    print(RESULTS.read_text())


def sections(text: str) -> dict[str, str]:
    """The parts of an earlier file, by their headings."""
    return {
        name: body.strip()
        for name, _, body in (part.partition("\n") for part in text.split("\n## ")[1:])
    }


def hardware() -> str:
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
