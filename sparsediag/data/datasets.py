"""Data sets as tensors on the device: `load("cifar10")`, or `load("folder:PATH")` for your own."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.device import with_index
from sparsediag.core.errors import unknown_name
from sparsediag.core.fingerprint import File, describe_code
from sparsediag.core.old_names import accept_old_names
from sparsediag.core.short_repr import short_repr
from sparsediag.data.clutter import clutter
from sparsediag.data.folders import (
    SPLITS,
    folder_digest,
    held_out_note,
    list_images,
    read_folder,
    read_tinyimagenet,
)
from sparsediag.data.images import AnyImages, ImageFiles, Images, Pair, hold_out, home, moments

__all__ = ["DATASETS", "Data", "ImageFiles", "Images", "Normalise", "Source", "home", "load"]

Normalise = Literal["own", "imagenet", "none"]


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: three splits, and what scales its pixels to mean 0 and standard deviation 1.

    Attributes:
        name: What it was loaded by.
        classes: Number of classes.
        channels: Channels of the normalised images: 1 or 3.
        size: Height and width of the images in pixels.
        train: The images to train on.
        validation: Those of the folder's val/, or a tenth of the training images, held out by a
            fixed seed.
        test: The images to judge on.
        mean: Of each channel as a share of full scale, (C, 1, 1).
        std: Likewise.
        scale: Full scale of a pixel: 255, or 16 for digits.
        notes: Split -> what to know about it: held out, or without images of a class.
        normalisation: What mean and std are: "own", "imagenet" or "none"; see `load`.
    """

    name: str
    classes: int
    channels: int
    size: int
    train: AnyImages
    validation: AnyImages
    test: AnyImages
    mean: Tensor
    std: Tensor
    scale: float
    notes: Mapping[str, str] = field(default_factory=dict)
    normalisation: Normalise = "own"

    __repr__ = short_repr

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return pixels as float32, shifted and scaled by the set's constants."""
        return (pixels.to(torch.float32) / self.scale - self.mean) / self.std

    def split(self, name: str) -> AnyImages:
        """Return the images of train, validation (or val, valid) or test."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in SPLITS:
            raise ValueError(unknown_name("split", name, splits))
        if not len(images := splits[SPLITS[name]]):
            others = " or ".join(other for other, part in splits.items() if len(part))
            raise ValueError(f"{self.name} has no {name} images; use the split {others}")
        return images

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
        return [(self.normalise(part.take(i)), part.labels[i]) for i in torch.split(order, batch)]

    def decode(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Decode all images of a folder into files, which `pixels` of a split is mapped from.

        Args:
            progress: Called as `progress(done, all)` for each split.
        """
        for part in (self.train, self.validation, self.test):
            if isinstance(part, ImageFiles):
                part.decode(progress)

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
        return [(self.normalise(images.take(i)), images.labels[i]) for i in order.split(batch)]


@accept_old_names
def load(
    name: str,
    *,
    device: torch.device | str = "cpu",
    size: int | None = None,
    normalise: Normalise = "own",
) -> Data:
    """Load a data set by its name in `DATASETS`, or a folder of images as `folder:PATH`.

    It is read from `home()` and downloaded if missing; `digits` and `clutter` are always there. A
    split that it does not have is a tenth of its training images. A second call returns the same
    object.

    Args:
        name: Of the data set.
        device: Where the images will be.
        size: For a folder: resize the shorter side of its images to this and cut out the middle.
            None if all have one square size.
        normalise: Mean and standard deviation to normalise by: the set's "own", those of
            "imagenet" (in three channels), or "none", which leaves pixels between 0 and 1.

    Raises:
        ValueError: If there is no such data set, or its images have other sizes.
        OSError: If it is neither there nor available from the network.

    >>> len(load("digits").train)
    1170
    """
    root, source = _folder(name), DATASETS.get(name)
    if not (root or source):
        hint = f"Write folder:{name}." if Path(name).is_dir() else "Your own images: folder:PATH."
        raise ValueError(f"{unknown_name('data set', name, DATASETS)} {hint}")
    if size is not None and (source or size < 1):
        need = "need 1 or more" if size < 1 else f"{name} has one size; leave it out"
        raise ValueError(f"size {size}: {need}")
    if normalise not in get_args(Normalise):
        raise ValueError(unknown_name("normalise", normalise, get_args(Normalise)))
    files = list_images(root) if root else ()
    if source:  # lists have no hash
        source = source._replace(moments=tuple((mean, std) for mean, std in source.moments))
    return _load(name, with_index(device), root or home(), files, source, size, normalise)


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
    size: int | None,
    normalise: Normalise,
) -> Data:
    """Read a data set, hold out the splits that it lacks, and move all to the device (cached)."""
    parts: Mapping[str, AnyImages]
    if source:
        full_train, test_part = _read(name, root, source)
        rest, held_out = hold_out(full_train, len(full_train) // 10)
        parts = {"train": rest, "validation": held_out, "test": test_part}
        classes = source.classes or 1 + max(int(part.labels.max()) for part in parts.values())
        scale, own = source.scale, source.moments
        notes = {"validation": held_out_note("validation", name)}
    else:
        names, parts, notes = read_folder(root, files, size)
        classes, scale, own = len(names), 255.0, ()
    channels, height, _ = parts["train"].shape
    known = {"own": own, "imagenet": IMAGENET, "none": channels * ((0.0, 1.0),)}
    used = known[normalise] or moments(parts["train"], scale)
    mean, std = torch.tensor(used, dtype=torch.float32, device=device).T[..., None, None]
    std = std.clamp_min(1 / 255)  # of a plane of one level: no division by 0
    channels = max(channels, len(mean))
    train, validation, test = (parts[s].to(device) for s in ("train", "validation", "test"))
    images = (train, validation, test)
    return Data(name, classes, channels, height, *images, mean, std, scale, notes, normalise)


def _read(name: str, root: Path, source: Source) -> Pair:
    """Read or download the images of a built-in data set."""
    # some torchvisions report downloads on stdout; numpy 2.4.0 to 2.4.4 warns of CIFAR's pickles
    with redirect_stdout(sys.stderr), warnings.catch_warnings(action="ignore"):
        try:
            return source.read(root)
        except (OSError, RuntimeError) as error:
            hint = f"Put {source.files} there, or set SPARSEDIAG_DATA to the folder that holds it."
            reason = " ".join(str(error).split())  # torchvision takes a line for each mirror
            raise OSError(f"no {name} in {root} or from the network: {reason}. {hint}") from error


def _digits(root: Path) -> Pair:
    """Read the file of scikit-learn itself, whose import takes longer than a small diagnostic."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise OSError("scikit-learn, which holds the digits, is not installed")
    file = Path(package.origin).parent / "datasets/data/digits.csv.gz"
    rows = torch.tensor(np.loadtxt(file, delimiter=",", dtype=np.int64))
    return hold_out(Images(rows[:, :-1].to(torch.uint8).view(-1, 1, 8, 8), rows[:, -1]), 497)


def _clutter(root: Path) -> Pair:
    train, test = _digits(root)
    return clutter(train, 6000, "train"), clutter(test, 10_000, "test")


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
IMAGENET = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))  # of torchvision's networks
FASHION = ((0.2860, 0.3530),)
DATASETS: dict[str, Source] = {
    "digits": Source(_digits, 10, ((0.3058, 0.3761),), scale=16),
    "clutter": Source(_clutter, 10, ((0.1914, 0.2849),)),
    "mnist": Source(partial(_torchvision, "MNIST"), 10, ((0.1307, 0.3081),), "MNIST/raw/*.gz"),
    "fashion_mnist": Source(
        partial(_torchvision, "FashionMNIST"), 10, FASHION, "FashionMNIST/raw/*.gz"
    ),
    "cifar10": Source(partial(_torchvision, "CIFAR10"), 10, CIFAR, "cifar-10-python.tar.gz"),
    "cifar100": Source(partial(_torchvision, "CIFAR100"), 100, CIFAR, "cifar-100-python.tar.gz"),
    "tinyimagenet": Source(read_tinyimagenet, 200, TINY, "tiny-imagenet-200.zip"),
}
BUILT_IN = DATASETS.copy()
