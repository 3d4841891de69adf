"""Switch TF32 on or off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32(on: bool = True) -> Iterator[None]:
    """Let float32 products and convolutions on a GPU be TF32 inside the block, or forbid it.

    Uses PyTorch's older switches: `torch.compile` reads them, and they set the newer ones too.
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
