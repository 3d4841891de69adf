"""Select the device to compute on, and measure its free memory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch


def select_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; "auto" is the first GPU if there is one, else the CPU.

    Raises:
        ValueError: If this machine has no such device.

    >>> select_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device '{name}': need auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("CUDA was asked for and is not available; use --device cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"{name} was asked for; there are {torch.cuda.device_count()} GPUs.")
    return device


def with_index(device: torch.device | str) -> torch.device:
    """Return the device with its index: "cuda" is the current GPU.

    >>> with_index("cpu")
    device(type='cpu')
    """
    if str(device) == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(device)


def free_memory(device: torch.device) -> float:
    """Return the free memory in bytes.

    >>> free_memory(torch.device("cpu")) > 0
    True
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + cached)
    limits = [2.0 * 2**30]  # if the system gives no number
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits = [1024.0 * next(int(n.split()[1]) for n in lines if n.startswith("MemAvailable"))]
    with suppress(OSError, ValueError):  # a container may allow less
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{n}").read_text() for n in ("max", "current"))
        limits.append(float(limit) - float(used))
    return max(0.0, min(limits))
