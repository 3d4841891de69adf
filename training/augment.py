"""Augmentation of a whole batch at once, on the device: crop out of a padded image, and flip."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_flip(pixels: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Each image cut out of its zero-padded self at a random place, and mirrored half the time.

    Args:
        pixels: (N, C, H, W), any dtype.
        generator: A CPU generator, so that every device sees the same crops.
        padding: Pixels of padding on every side.

    >>> crop_flip(torch.ones(2, 1, 8, 8), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 1, 8, 8])
    """
    n, channels, height, width = pixels.shape
    top, left = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator)
    mirrored = torch.randint(0, 2, (n, 1), generator=generator).bool()
    rows = top + torch.arange(height)
    columns = left + torch.where(mirrored, torch.arange(width).flip(0), torch.arange(width))
    rows, columns = rows.to(pixels.device), columns.to(pixels.device)
    image = torch.arange(n, device=pixels.device)[:, None, None, None]
    channel = torch.arange(channels, device=pixels.device)[:, None, None]
    padded = F.pad(pixels, (padding,) * 4)
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
