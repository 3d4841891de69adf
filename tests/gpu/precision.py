"""TF32, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32(on: bool = True) -> Iterator[None]:
    """Inside, float32 products and convolutions on a GPU are TF32, or full float32.

    By PyTorch's older switches: `torch.compile` reads those, and they set the newer ones too.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if on else "highest")
    cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]
