"""Read and write the file of results, one Markdown section at a time."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "RESULTS.md"


def write(name: str, lines: Sequence[str], file: Path = RESULTS) -> None:
    """Replace the section `name`, or add it at the end; the others stay as they are."""
    text = file.read_text() if file.exists() else "# Benchmarks\n"
    head, *parts = text.split("\n## ")
    sections = dict(part.split("\n", 1) for part in parts)
    sections[name] = "\n" + "\n".join(lines) + "\n"
    bodies = [f"## {title}\n\n{body.strip()}\n" for title, body in sections.items()]
    file.write_text("\n".join([head.strip() + "\n", *bodies]))


def hardware(device: torch.device) -> str:
    """Describe the machine."""
    card = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return (
        f"{card}{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"
    )
