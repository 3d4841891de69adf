"""Data sets as tensors on the device: `load("cifar10")`, or `load("folder:PATH")` for your own."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sparsediag.core.device import with_index
from sparsediag.core.errors import unknown_name
from sparsediag.core.fingerprint import File, describe_code
from sparsediag.core.short_repr import short_repr
from sparsediag.data.images import (
    Images,
    Pair,
    folder_digest,
    hold_out,
    home,
    list_images,
    load_class_folders,
    load_tinyimagenet,
)

__all__ = ["DATASETS", "Data", "Images", "Source", "home", "load"]


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: three splits, and what scales its pixels to mean 0 and standard deviation 1.

    Attributes:
        name: What it was loaded by.
        classes: Number of classes.
        channels: 1 or 3.
        size: Height and width of the images in pixels.
        train: The images to train on.
        validation: A tenth of the training images, held out by a fixed seed.
        test: The images to judge on.
        mean: Of each channel as a share of full scale, (C, 1, 1).
        std: Likewise.
        scale: Full scale of a pixel: 255, or 16 for digits.
    """

    name: str
    classes: int
    channels: int
    size: int
    train: Images
    validation: Images
    test: Images
    mean: Tensor
    std: Tensor
    scale: float

    __repr__ = short_repr

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return pixels as float32, shifted and scaled by the set's constants."""
        return (pixels.to(torch.float32) / self.scale - self.mean) / self.std

    def split(self, name: str) -> Images:
        """Return the images of train, validation or test."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in splits:
            raise ValueError(unknown_name("split", name, splits))
        return splits[name]

    def batches(
        self, split: str = "train", *, images: int | None = None, batch: int = 128, seed: int = 0
    ) -> list[tuple[Tensor, Tensor]]:
        """Return batches of a fixed random sample, normalised and without augmentation.

        Args:
            split: train, validation or test.
            images: Number of images; None for all of the split.
            batch: Images in a batch; the last one may be smaller.
            seed: Seed of the sample, the same on every device.
        """
        if batch < 1 or (images is not None and images < 1):
            raise ValueError(f"images={images}, batch={batch}: need 1 or more, or images=None")
        part, generator = self.split(split), torch.Generator().manual_seed(seed)
        order = torch.randperm(len(part), generator=generator)[:images].to(part.labels.device)
        return [(self.normalise(part.pixels[i]), part.labels[i]) for i in torch.split(order, batch)]

    def balanced_batches(
        self, per_class: int, *, batch: int = 256, seed: int = 0
    ) -> list[tuple[Tensor, Tensor]]:
        """Return batches with `per_class` training images of each class, shuffled, normalised.

        Args:
            per_class: Images of each class.
            batch: Images in a batch; the last one may be smaller.
            seed: Seed of the sample, the same on every device.

        Raises:
            ValueError: If a class has fewer.
        """
        labels, generator = self.train.labels.cpu(), torch.Generator().manual_seed(seed)
        chosen = []
        for k in range(self.classes):
            indices = (labels == k).nonzero().squeeze(1)
            if len(indices) < per_class:
                raise ValueError(
                    f"per_class = {per_class}: class {k} of {self.name} has {len(indices)} images"
                )
            chosen.append(indices[torch.randperm(len(indices), generator=generator)[:per_class]])
        order = torch.cat(chosen)
        order = order[torch.randperm(len(order), generator=generator)].to(self.train.labels.device)
        images = self.train
        return [(self.normalise(images.pixels[i]), images.labels[i]) for i in order.split(batch)]


def load(name: str, *, device: torch.device | str = "cpu") -> Data:
    """Load a data set by its name in `DATASETS`, or a folder of images as `folder:PATH`.

    It is read from `home()` and downloaded if missing; `digits` is always there. A tenth of the
    training images is held out for validation. A second call returns the same object.

    Args:
        name: Of the data set.
        device: Where the images will be.

    Raises:
        ValueError: If there is no such data set.
        OSError: If it is neither there nor available from the network.

    >>> len(load("digits").train)
    1170
    """
    root, source = _folder(name), DATASETS.get(name)
    if not (root or source):
        raise ValueError(
            f"{unknown_name('data set', name, DATASETS)} Your own images: folder:PATH."
        )
    files = list_images(root) if root else ()
    if source:  # lists have no hash
        source = source._replace(moments=tuple((mean, std) for mean, std in source.moments))
    return _load(name, with_index(device), root or home(), files, source)


def content_digest(name: str) -> str:
    """Return a digest of an image folder's files, or of the code of a set that was added; or "".

    Args:
        name: As `load` takes it. The built-in sets, which do not change, and folders that are
            missing have none.
    """
    root, source = _folder(name), DATASETS.get(name)
    if root:
        return folder_digest(root) if root.is_dir() else ""
    return "" if source is BUILT_IN.get(name) else describe_code(source)


def _folder(name: str) -> Path | None:
    """Return the folder in `folder:PATH`."""
    path = name.removeprefix("folder:")
    return None if path == name else Path(path).expanduser()


@lru_cache(maxsize=2)
def _load(
    name: str,
    device: torch.device,
    root: Path,
    files: tuple[File, ...],
    source: Source | None,
) -> Data:
    """Read a data set, hold out the validation images, and move all to the device (cached)."""
    source = source or Source(partial(load_class_folders, files), 0, (), "images")
    # some torchvisions report downloads on stdout; numpy 2.4.0 to 2.4.4 warns of CIFAR's pickles
    with redirect_stdout(sys.stderr), warnings.catch_warnings(action="ignore"):
        try:
            full_train, test = source.read(root)
        except (OSError, RuntimeError) as error:
            hint = f"Put {source.files} there, or set SPARSEDIAG_DATA to the folder that holds it."
            reason = " ".join(str(error).split())  # torchvision takes a line for each mirror
            raise OSError(f"no {name} in {root} or from the network: {reason}. {hint}") from error
    classes = source.classes or int(torch.cat((full_train.labels, test.labels)).max()) + 1
    parts = (*hold_out(full_train, len(full_train) // 10), test)
    train, validation, test = (Images(p.pixels.to(device), p.labels.to(device)) for p in parts)
    moments = source.moments or [torch.std_mean(p / 255)[::-1] for p in train.pixels.unbind(1)]
    mean, std = torch.tensor(moments, dtype=torch.float32, device=device).T[..., None, None]
    std = std.clamp_min(1 / 255)  # of a plane of one level: no division by 0
    channels, size = train.pixels.shape[1:3]
    return Data(name, classes, channels, size, train, validation, test, mean, std, source.scale)


def _digits(root: Path) -> Pair:
    from sklearn.datasets import load_digits

    pixels, labels = map(torch.tensor, load_digits(return_X_y=True))
    return hold_out(Images(pixels.to(torch.uint8).view(-1, 1, 8, 8), labels), 497)


def _torchvision(kind: str, root: Path) -> Pair:
    from torchvision import datasets

    def split(train: bool) -> Images:
        dataset = getattr(datasets, kind)(root, train=train, download=True)
        pixels = dataset.data.reshape(*dataset.data.shape[:3], -1)  # (N, H, W, C)
        return Images(torch.as_tensor(pixels).permute(0, 3, 1, 2), torch.as_tensor(dataset.targets))

    return split(True), split(False)


class Source(NamedTuple):
    """Description of a data set before it is read."""

    read: Callable[[Path], Pair]  # from the folder of all sets
    classes: int
    moments: tuple[tuple[float, float], ...]  # mean and std of each channel, of full scale
    files: str = ""  # to put into that folder by hand
    scale: float = 255


CIFAR = ((0.4914, 0.2023), (0.4822, 0.1994), (0.4465, 0.2010))  # for 100 too, as in the papers
TINY = ((0.4802, 0.2770), (0.4481, 0.2691), (0.3975, 0.2821))
FASHION = ((0.2860, 0.3530),)
DATASETS: dict[str, Source] = {
    "digits": Source(_digits, 10, ((0.3058, 0.3761),), scale=16),
    "mnist": Source(partial(_torchvision, "MNIST"), 10, ((0.1307, 0.3081),), "MNIST/raw/*.gz"),
    "fashion_mnist": Source(
        partial(_torchvision, "FashionMNIST"), 10, FASHION, "FashionMNIST/raw/*.gz"
    ),
    "cifar10": Source(partial(_torchvision, "CIFAR10"), 10, CIFAR, "cifar-10-python.tar.gz"),
    "cifar100": Source(partial(_torchvision, "CIFAR100"), 100, CIFAR, "cifar-100-python.tar.gz"),
    "tinyimagenet": Source(load_tinyimagenet, 200, TINY, "tiny-imagenet-200.zip"),
}
BUILT_IN = DATASETS.copy()
