"""Cuda: what of `torch.cuda` and its kin is pretended; the rest raises as without a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from tests.pretend.ledger import Ledger

ANSWERS: dict[str, Any] = {
    "is_available": True,
    "is_initialized": True,
    "is_bf16_supported": True,
    "is_current_stream_capturing": False,
    "device_count": 1,
    "current_device": 0,
    "get_device_name": "pretend GPU",
    "get_device_capability": (9, 0),
    "get_device_properties": SimpleNamespace(
        name="pretend GPU", total_memory=80 * 2**30, multi_processor_count=132, major=9, minor=0
    ),
    "mem_get_info": (70 * 2**30, 80 * 2**30),
    "memory_allocated": 0,
    "memory_reserved": 0,
    "max_memory_allocated": 0,
    "max_memory_reserved": 0,
    "reset_peak_memory_stats": None,
    "empty_cache": None,
    "manual_seed": None,
    "manual_seed_all": None,
    "set_rng_state": None,
    "_lazy_init": None,
}


def install(ledger: Ledger) -> None:
    """Put the pretended functions in the places of those of torch."""
    for name, answer in ANSWERS.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    torch.cuda.get_rng_state = lambda *_: torch.zeros(16, dtype=torch.uint8)
    torch.cuda.synchronize = lambda *_: ledger.wait("synchronize")
    still = SimpleNamespace(is_capturing=lambda: False)
    torch.accelerator.current_stream = torch.cuda.current_stream = lambda *_: still
    torch.cuda.set_device = known
    torch.cuda.device = Current
    torch.Generator = Generator
    torch.autocast = torch.amp.autocast = torch.amp.autocast_mode.autocast = Autocast


def known(device: Any) -> None:
    """Raise for a GPU that is not there; -1 is none."""
    index = device if isinstance(device, int) else torch.device(device).index
    if index not in (None, 0, -1):
        raise RuntimeError(f"CUDA error: invalid device ordinal {index}")


class Current:
    """`torch.cuda.device`: a GPU that is the current one inside a block."""

    def __init__(self, device: Any) -> None:
        known(device)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class Generator(torch.Generator):
    """A generator that says which device it draws for."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        self = super().__new__(cls, "cpu")
        self.pretended = torch.device(device)
        return self

    def __init__(self, device: Any = "cpu") -> None: ...

    @property
    def device(self) -> torch.device:
        return self.pretended


class Autocast(torch.autocast):
    """Autocast of the CPU in the place of that of the GPU."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)
