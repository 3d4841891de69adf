"""Versions, what the machine can do at best, and what a launch costs."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

import torch
from torch import Tensor

import sparsediag
from tests.bench.timing import seconds
from tests.gpu.place import Measurements, Place, Row
from tests.gpu.precision import tf32


def measurements(place: Place) -> Measurements:
    yield "versions", lambda: versions(place)
    for name, dtype in {"bf16": torch.bfloat16, "float32": torch.float32}.items():
        yield f"matrix product, {name}", lambda dtype=dtype: product(place, dtype)
    yield "matrix product, TF32", lambda: tf32_product(place)
    yield "matrix product, float64", lambda: product(place, torch.float64)
    yield "copy on the device", lambda: copy(place)
    yield "launch, eager", lambda: launch(place)
    yield "launch, captured graph", lambda: captured(place)
    yield "a number read on the host", lambda: read(place)


def versions(place: Place) -> Row:
    row: Row = {
        "sparsediag": sparsediag.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "card": "none",
    }
    if place.cuda:
        card = torch.cuda.get_device_properties(place.device)
        row |= {
            "card": card.name,
            "memory GB": round(card.total_memory / 1e9),
            "capability": f"{card.major}.{card.minor}",
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
        }
    return row


def product(place: Place, dtype: torch.dtype) -> Row:
    n = place.size(8192, 64)
    a, b = (torch.randn(n, n, device=place.device).to(dtype) for _ in range(2))
    took = seconds(lambda: a @ b)
    return {"TFLOP/s": 2 * n**3 / took / 1e12}


def tf32_product(place: Place) -> Row:
    place.needs_cuda("TF32")
    with tf32():
        return product(place, torch.float32)


def copy(place: Place) -> Row:
    a = torch.empty(place.size(2**30, 2**16), dtype=torch.uint8, device=place.device)
    b = torch.empty_like(a)
    took = seconds(lambda: b.copy_(a))
    return {"GB/s read and written": 2 * a.numel() / took / 1e9}


def launch(place: Place) -> Row:
    return {"us": _each(_tiny(place))}


def captured(place: Place) -> Row:
    place.needs_cuda("captured graph")
    work = _tiny(place)
    work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return {"us": _each(graph.replay)}


def read(place: Place) -> Row:
    number = torch.ones((), device=place.device)
    return {"us": 1e6 * seconds(lambda: [number.item() for _ in range(100)]) / 100}


KERNELS = 1000


def _tiny(place: Place) -> Callable[[], object]:
    number: Tensor = torch.ones((), device=place.device)

    def work() -> None:
        for _ in range(KERNELS):
            number.add_(1)

    return work


def _each(work: Callable[[], object]) -> float:
    return 1e6 * seconds(work) / KERNELS
