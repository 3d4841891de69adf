"""The training images of an epoch, in batches, as the network gets them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import torch
from torch import Tensor

from sparsediag.core.rng import stream
from sparsediag.data.datasets import Data
from training.augment import crop_flip, draw
from training.config import Run


def picks(
    run: Run, data: Data, epoch: int, *, purpose: str = "epoch"
) -> Iterator[tuple[Tensor, ...]]:
    """Yield what `load` makes each batch of: numbers of images, and crops where there are any.

    Randomness depends only on (purpose, seed, epoch). All of it is drawn and copied to the device
    before the first batch, so that no step waits for it. The last, smaller batch is kept, unless it
    is a single image, of which batch norm has no statistics.
    """
    augments = run.augment == "crop_flip" or (run.augment == "auto" and data.channels == 3)
    chance, images = stream(purpose, run.seed, epoch), data.train
    batch, device = run.optim.batch_size, images.labels.device
    order = torch.randperm(len(images), generator=chance).to(device).split(batch)
    if len(order[-1]) == 1 < batch:
        order = order[:-1]
    if not augments:
        yield from zip(order)
        return
    crops = draw(map(len, order), chance).to(device).split(batch, 1)
    yield from zip(order, crops, strict=False)


def load(data: Data, chosen: Tensor, crops: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the normalised images and the labels of a training batch.

    Args:
        data: The data set.
        chosen: Numbers of its training images, (n,).
        crops: Where each is cut out, (3, n); see `training.augment.draw`.
    """
    pixels = data.train.pixels[chosen]
    if crops is not None:
        pixels = crop_flip(pixels, crops)
    return data.normalise(pixels), data.train.labels[chosen]


def feed(
    run: Run, data: Data, epoch: int, *, purpose: str = "epoch"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of an epoch: shuffled, augmented and normalised images with their labels.

    See `picks`.
    """
    for pick in picks(run, data, epoch, purpose=purpose):
        yield load(data, *pick)


def batch_stream(run: Run, data: Data, *, purpose: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of one epoch after another, without end."""
    for epoch in count():
        yield from feed(run, data, epoch, purpose=purpose)
