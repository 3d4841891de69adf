"""Versions, peak speeds of the machine, and the cost of a launch."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

import torch
from torch import Tensor

import sparsediag
from tests.bench.timing import seconds
from tests.gpu.precision import tf32
from tests.gpu.settings import Measurements, Row, Settings


def measurements(settings: Settings) -> Measurements:
    yield "versions", lambda: versions(settings)
    for name, dtype in {"bf16": torch.bfloat16, "float32": torch.float32}.items():
        yield f"matrix product, {name}", lambda dtype=dtype: product(settings, dtype)
    yield "matrix product, TF32", lambda: tf32_product(settings)
    yield "matrix product, float64", lambda: product(settings, torch.float64)
    yield "copy on the device", lambda: copy(settings)
    yield "launch, eager", lambda: launch(settings)
    yield "launch, captured graph", lambda: captured(settings)
    yield "a number read on the host", lambda: read(settings)


def versions(settings: Settings) -> Row:
    row: Row = {
        "sparsediag": sparsediag.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "card": "none",
    }
    if settings.cuda:
        card = torch.cuda.get_device_properties(settings.device)
        row |= {
            "card": card.name,
            "memory GB": round(card.total_memory / 1e9),
            "capability": f"{card.major}.{card.minor}",
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
        }
    return row


def product(settings: Settings, dtype: torch.dtype) -> Row:
    n = settings.size(8192, 64)
    a, b = (torch.randn(n, n, device=settings.device).to(dtype) for _ in range(2))
    took = seconds(lambda: a @ b)
    return {"TFLOP/s": 2 * n**3 / took / 1e12}


def tf32_product(settings: Settings) -> Row:
    settings.needs_cuda("TF32")
    with tf32():
        return product(settings, torch.float32)


def copy(settings: Settings) -> Row:
    a = torch.empty(settings.size(2**30, 2**16), dtype=torch.uint8, device=settings.device)
    b = torch.empty_like(a)
    took = seconds(lambda: b.copy_(a))
    return {"GB/s read and written": 2 * a.numel() / took / 1e9}


def launch(settings: Settings) -> Row:
    return {"us": _each(_tiny(settings))}


def captured(settings: Settings) -> Row:
    settings.needs_cuda("captured graph")
    work = _tiny(settings)
    work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return {"us": _each(graph.replay)}


def read(settings: Settings) -> Row:
    number = torch.ones((), device=settings.device)
    return {"us": 1e6 * seconds(lambda: [number.item() for _ in range(100)]) / 100}


KERNELS = 1000


def _tiny(settings: Settings) -> Callable[[], object]:
    number: Tensor = torch.ones((), device=settings.device)

    def work() -> None:
        for _ in range(KERNELS):
            number.add_(1)

    return work


def _each(work: Callable[[], object]) -> float:
    return 1e6 * seconds(work) / KERNELS
