"""Augmentation of a whole batch at once, on the device: crop out of a padded image, and flip."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def draw(counts: Iterable[int], generator: torch.Generator, padding: int = 4) -> Tensor:
    """Draw the row, the column and the flip (0 or 1) of every crop of an epoch, (3, images).

    Args:
        counts: Images in each batch; the numbers of a batch are drawn before those of the next.
        generator: A CPU generator, so that every device sees the same crops.
        padding: Pixels of padding on every side.
    """
    batches = []
    for n in counts:
        corners = torch.randint(0, 2 * padding + 1, (2, n), generator=generator)
        flips = torch.randint(0, 2, (1, n), generator=generator)
        batches.append(torch.cat((corners, flips)))
    return torch.cat(batches, 1)


def crop_flip(pixels: Tensor, crops: Tensor, padding: int = 4) -> Tensor:
    """Cut each image out of its zero-padded self, and mirror it where its flip is 1.

    Args:
        pixels: (N, C, H, W), any dtype.
        crops: The part of `draw` for these images, (3, N), on their device.
        padding: As in `draw`.

    >>> crop_flip(torch.ones(2, 1, 8, 8), draw([2], torch.Generator().manual_seed(0))).shape
    torch.Size([2, 1, 8, 8])
    """
    n, channels, height, width = pixels.shape
    top, left, flipped = crops[..., None]
    across = torch.arange(width, device=pixels.device)
    rows = top + torch.arange(height, device=pixels.device)
    columns = left + torch.where(flipped > 0, across.flip(0), across)
    image = torch.arange(n, device=pixels.device)[:, None, None, None]
    channel = torch.arange(channels, device=pixels.device)[:, None, None]
    padded = F.pad(pixels, (padding,) * 4)
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
