"""Feed: the training images of an epoch, in batches, as the net gets them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import torch
from torch import Tensor

from sparsediag.chance import stream
from sparsediag.data import Data
from training.augment import crop_flip, draw
from training.config import Run


def feed(
    run: Run, data: Data, epoch: int, *, purpose: str = "epoch"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented and normalised batches; all chance is in (purpose, seed, epoch).

    The last, smaller batch is kept, unless it is a single image, of which batch norm has no
    statistics. All that is drawn is copied to the device before the first batch, so that no step
    waits for it.
    """
    augments = run.augment == "crop_flip" or (run.augment == "auto" and data.channels == 3)
    chance, images = stream(purpose, run.seed, epoch), data.train
    batch, device = run.optim.batch, images.labels.device
    order = torch.randperm(len(images), generator=chance).to(device).split(batch)
    if len(order[-1]) == 1 < batch:
        order = order[:-1]
    if augments:
        crops = draw(map(len, order), chance).to(device).split(batch, 1)
    for i, chosen in enumerate(order):
        pixels = images.pixels[chosen]
        if augments:
            pixels = crop_flip(pixels, crops[i])
        yield data.normalise(pixels), images.labels[chosen]


def endless(run: Run, data: Data, *, purpose: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch of it."""
    for epoch in count():
        yield from feed(run, data, epoch, purpose=purpose)
