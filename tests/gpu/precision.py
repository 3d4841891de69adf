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
    product, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = product.allow_tf32, cudnn.allow_tf32
    product.allow_tf32, cudnn.allow_tf32 = on, on
    try:
        yield
    finally:
        product.allow_tf32, cudnn.allow_tf32 = before
