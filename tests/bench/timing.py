"""What the benchmarks share: a clock, a measure of memory, and a table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

Row = tuple[str, ...]
Rows = list[Row]


CPU = torch.device("cpu")


def clock() -> float:
    """Return the time in seconds, after a GPU has finished its work."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time of a call, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = clock()
        work()
        times.append(clock() - start)
    return statistics.median(times)


def memory(work: Callable[[], object], device: torch.device = CPU) -> float:
    """Return the peak MB of a call beyond what is held before it.

    On a GPU what PyTorch allocates there, else the memory of the process (Linux).
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - held) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def table(heads: Sequence[str], rows: Rows) -> list[str]:
    """Lines of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
