"""Data sets of 3 x 32 x 32 pixels that need no files: random pixels, and enlarged digits."""

from __future__ import annotations

from pathlib import Path

import torch

from sparsediag.data import datasets
from sparsediag.data.datasets import CIFAR, DATASETS, Source
from sparsediag.data.images import Images
from tests.gpu.settings import Settings


def pixels(count: int) -> str:
    """Register a set of random images, `count` of them for training, and return its name."""

    def read(_: Path) -> tuple[Images, Images]:
        draw, whole = torch.Generator().manual_seed(0), count + count // 9  # a tenth is held out
        shown = torch.randint(256, (whole + 1000, 3, 32, 32), dtype=torch.uint8, generator=draw)
        labels = torch.randint(10, (whole + 1000,), generator=draw)
        return Images(shown[:whole], labels[:whole]), Images(shown[whole:], labels[whole:])

    name = f"pixels-{count}"
    DATASETS.setdefault(name, Source(read, 10, CIFAR))
    return name


def pictures(settings: Settings) -> str:
    """Return the name of a set to train on: the caller's, or enlarged digits."""

    def read(_: Path) -> tuple[Images, Images]:
        digits, few = datasets.load("digits"), settings.size(None, 100)
        parts = [_enlarged(images) for images in (digits.train, digits.validation)]
        shown, labels = (torch.cat([getattr(p, k) for p in parts]) for k in ("pixels", "labels"))
        return Images(shown[:few], labels[:few]), _enlarged(digits.test)

    if settings.data:
        return settings.data
    DATASETS.setdefault("digits-32", Source(read, 10, DATASETS["digits"].moments * 3, scale=16))
    return "digits-32"


def _enlarged(images: Images) -> Images:
    large = images.pixels.repeat_interleave(4, 2).repeat_interleave(4, 3)
    return Images(large.repeat(1, 3, 1, 1), images.labels)
