"""The training images of an epoch in batches: shuffled, cropped and flipped on the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsediag.core.rng import stream
from sparsediag.data.datasets import Data
from training.config import Run


def epoch_indices(
    run: Run, data: Data, epoch: int, *, purpose: str = "epoch"
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the arguments of `load_batch` for each batch: image indices, and crops if any.

    Randomness depends only on (purpose, seed, epoch). All of it is drawn and copied to the device
    before the first batch, so that no step waits for it. The last, smaller batch is kept, unless it
    is a single image, which has no batch statistics.
    """
    generator, images = stream(purpose, run.seed, epoch), data.train
    in_colour = images.shape[0] == 3
    augments = run.augment == "crop_flip" or (run.augment == "auto" and in_colour)
    batch_size, device = run.optim.batch_size, images.labels.device
    order = torch.randperm(len(images), generator=generator).to(device).split(batch_size)
    if len(order[-1]) == 1 < batch_size:
        order = order[:-1]
    if not augments:
        yield from zip(order)
        return
    crops = draw_crops(map(len, order), generator).to(device).split(batch_size, 1)
    yield from zip(order, crops, strict=False)


def load_batch(data: Data, indices: Tensor, crops: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the normalised images and the labels of a training batch.

    Args:
        data: The data set.
        indices: Indices of its training images, (n,).
        crops: Crops and flips of `draw_crops`, (3, n).
    """
    pixels = data.train.pixels[indices]
    if crops is not None:
        pixels = crop_flip(pixels, crops)
    return data.normalise(pixels), data.train.labels[indices]


def batch_stream(run: Run, data: Data, *, purpose: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the training batches of one epoch after another, without end."""
    for epoch in count():
        for indices in epoch_indices(run, data, epoch, purpose=purpose):
            yield load_batch(data, *indices)


def draw_crops(counts: Iterable[int], generator: torch.Generator, padding: int = 4) -> Tensor:
    """Draw the row, the column and the flip (0 or 1) of every crop of an epoch, (3, images).

    Args:
        counts: Images in each batch; the numbers of a batch are drawn before those of the next.
        generator: A CPU generator, so that every device gets the same crops.
        padding: Pixels of padding on every side.
    """
    batches = []
    for n in counts:
        corners = torch.randint(0, 2 * padding + 1, (2, n), generator=generator)
        flips = torch.randint(0, 2, (1, n), generator=generator)
        batches.append(torch.cat((corners, flips)))
    return torch.cat(batches, 1)


def crop_flip(pixels: Tensor, crops: Tensor, padding: int = 4) -> Tensor:
    """Pad each image with zeros, crop it, and mirror it where its flip is 1.

    Args:
        pixels: (N, C, H, W), any dtype.
        crops: The part of `draw_crops` for these images, (3, N), on their device.
        padding: As in `draw_crops`.

    >>> crops = draw_crops([2], torch.Generator().manual_seed(0))
    >>> crop_flip(torch.ones(2, 1, 8, 8), crops).shape
    torch.Size([2, 1, 8, 8])
    """
    n, channels, height, width = pixels.shape
    top, left, flipped = crops[..., None]
    offsets = torch.arange(width, device=pixels.device)
    rows = top + torch.arange(height, device=pixels.device)
    columns = left + torch.where(flipped > 0, offsets.flip(0), offsets)
    image = torch.arange(n, device=pixels.device)[:, None, None, None]
    channel = torch.arange(channels, device=pixels.device)[:, None, None]
    padded = F.pad(pixels, (padding,) * 4)
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
