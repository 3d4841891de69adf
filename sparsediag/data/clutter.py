"""Cluttered digits: a data set for two CPU cores that is hard enough to tell methods apart.

Each image is a scan of scikit-learn's handwritten digits (8 x 8 pixels), rotated, stretched,
sheared and shifted on 12 x 12 pixels, with a piece of another scan over it and noise. Training and
test images come from different scans. The idea of foreign pieces is that of cluttered MNIST (Mnih
et al., Recurrent Models of Visual Attention, NeurIPS 2014).

It stands for tasks on which a sparse network is clearly worse than a dense one. It does not stand
for natural images: one channel, few pixels, and no more than 1,300 different scans to learn from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsediag.core.rng import stream
from sparsediag.data.images import AnyImages, Images

SIZE = 12  # pixels on a side
ANGLE, STRETCH, SHEAR, SHIFT = 0.25, 0.15, 0.15, 1.5  # largest: radians, share, share, pixels
PIECE = 4  # pixels on a side of the piece of another scan
NOISE = 0.08  # standard deviation, of full scale


def clutter(scans: AnyImages, count: int, name: str) -> Images:
    """Make cluttered digits from scans, the same ones each time.

    Args:
        scans: Digits of 8 x 8 pixels from 0 to 16.
        count: Number of images.
        name: Of the random stream, such as "train".

    Returns:
        Images of 1 x 12 x 12 pixels from 0 to 255; the classes are those of the scans.

    >>> scans = Images(torch.full((3, 1, 8, 8), 16, dtype=torch.uint8), torch.arange(3))
    >>> clutter(scans, 5, "train").pixels.shape
    torch.Size([5, 1, 12, 12])
    """
    random = stream("clutter " + name, 0)
    ink = scans.pixels.double() / 16
    chosen = torch.randint(len(scans), (count,), generator=random)
    image = _warp(ink[chosen], random)
    others = torch.randint(len(scans), (count,), generator=random)
    image = torch.maximum(image, _piece(ink[others], random))
    image += NOISE * torch.randn(image.shape, generator=random, dtype=torch.float64)
    return Images((255 * image.clamp(0, 1)).round().to(torch.uint8), scans.labels[chosen])


def _warp(scans: Tensor, random: torch.Generator) -> Tensor:
    """Rotate, stretch, shear and shift each scan onto the larger image."""
    angle, stretch, shear, right, down = (
        2 * torch.rand(5, len(scans), generator=random, dtype=torch.float64) - 1
    )
    angle, scale = ANGLE * angle, SIZE / 8 / (1 + STRETCH * stretch)
    cos, sin, shear = scale * angle.cos(), scale * angle.sin(), SHEAR * shear
    right, down = 2 * SHIFT / 8 * right, 2 * SHIFT / 8 * down  # an image is 2 wide
    rows = [
        torch.stack([cos, shear * cos - sin, right]),
        torch.stack([sin, shear * sin + cos, down]),
    ]
    grid = F.affine_grid(
        torch.stack(rows).permute(2, 0, 1), [len(scans), 1, SIZE, SIZE], align_corners=False
    )
    return F.grid_sample(scans, grid, align_corners=False)


def _piece(scans: Tensor, random: torch.Generator) -> Tensor:
    """Cut a square out of each scan and put it anywhere on an empty image."""
    count, last = len(scans), (8 - PIECE, SIZE - PIECE)
    image, each = torch.zeros(count, 1, SIZE, SIZE, dtype=torch.float64), torch.arange(PIECE)
    (y, x), (row, column) = (
        torch.randint(end + 1, (2, count, 1), generator=random) + each for end in last
    )
    n = torch.arange(count)[:, None, None]
    image[n, 0, row[:, :, None], column[:, None]] = scans[n, 0, y[:, :, None], x[:, None]]
    return image
