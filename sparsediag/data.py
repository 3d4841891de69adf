"""Data sets as tensors on the device: `load("cifar10")`, or `load("folder:PATH")` for your own."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache, partial
from glob import glob
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sparsediag.errors import unknown

SPLIT_SEED = 0  # one split for all runs, whatever a run's own seed
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
LAYOUT = f"train/<class>/* and test/<class>/*, or <class>/* ({', '.join(SUFFIXES)})"
File = tuple[str, int, int]  # path below the root, bytes, time of change in ns
Pair = tuple["Images", "Images"]  # for training and validation, for testing


def home() -> Path:
    """Where data sets live: `$SPARSEDIAG_DATA`, else `sparsediag` in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "sparsediag"
    return Path(os.environ.get("SPARSEDIAG_DATA") or cache).expanduser()


@dataclass(frozen=True, eq=False)
class Images:
    """Some images and their classes, on one device."""

    pixels: Tensor  # (N, C, H, W), uint8
    labels: Tensor  # (N,), int64

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: three splits, and the constants that bring its pixels to mean 0 and spread 1."""

    name: str
    classes: int
    channels: int
    size: int  # height = width, in pixels
    train: Images
    validation: Images
    test: Images
    mean: Tensor  # (C, 1, 1), as a share of full scale
    std: Tensor  # (C, 1, 1), as a share of full scale
    scale: float  # full scale of a pixel: 255, or 16 for digits

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels as float32, shifted and scaled by the set's constants."""
        return (pixels.to(torch.float32) / self.scale - self.mean) / self.std

    def split(self, name: str) -> Images:
        """The images of train, validation or test."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in splits:
            raise ValueError(unknown("split", name, splits))
        return splits[name]

    def batches(
        self, split: str = "train", *, images: int | None = None, batch: int = 128, seed: int = 0
    ) -> list[tuple[Tensor, Tensor]]:
        """A fixed sample, normalised, without augmentation; a seed draws alike on all devices."""
        if batch < 1 or (images is not None and images < 1):
            raise ValueError(f"images={images}, batch={batch}: need 1 or more, or images=None")
        part, draw = self.split(split), torch.Generator().manual_seed(seed)
        order = torch.randperm(len(part), generator=draw)[:images].to(part.labels.device)
        return [(self.normalise(part.pixels[i]), part.labels[i]) for i in torch.split(order, batch)]


def load(name: str, *, device: torch.device | str = "cpu") -> Data:
    """A data set by its name in `DATASETS`, or a folder of images as `folder:PATH`.

    Looked for in `home()` and downloaded where missing; `digits` is always there. A tenth of the
    training images is held out for validation. A second call returns the same object.

    >>> len(load("digits").train)
    1170
    """
    own = name.startswith("folder:")
    if not own and name not in DATASETS:
        raise ValueError(f"{unknown('data set', name, DATASETS)} Your own images: folder:PATH.")
    root = Path(name.removeprefix("folder:")).expanduser() if own else home()
    return _load(name, str(device), root, _listing(root) if own else ())


@lru_cache(maxsize=2)
def _load(name: str, device: str, root: Path, files: tuple[File, ...]) -> Data:
    source = DATASETS.get(name) or Source(partial(_folder, files), 0, (), "images")
    # some torchvisions announce downloads on stdout, and numpy 2.4.0 warns of CIFAR's old pickles
    with redirect_stdout(sys.stderr), warnings.catch_warnings(action="ignore"):
        try:
            whole, test = source.read(root)
        except (OSError, RuntimeError) as error:
            hint = f"Put {source.files} there, or set SPARSEDIAG_DATA to the folder that holds it."
            why = " ".join(str(error).split())  # torchvision takes a line for each mirror
            raise OSError(f"no {name} in {root} or from the network: {why}. {hint}") from error
    parts = (*_hold_out(whole, len(whole) // 10), test)
    train, validation, test = (Images(p.pixels.to(device), p.labels.to(device)) for p in parts)
    moments = source.moments or [torch.std_mean(p / 255)[::-1] for p in train.pixels.unbind(1)]
    mean, std = torch.tensor(moments, dtype=torch.float32, device=device).T[..., None, None]
    std = std.clamp_min(1 / 255)  # of a plane of one level: no division by 0
    classes = source.classes or int(torch.cat((whole.labels, test.labels)).max()) + 1
    channels, size = train.pixels.shape[1:3]
    return Data(name, classes, channels, size, train, validation, test, mean, std, source.scale)


def _hold_out(images: Images, count: int) -> Pair:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held, rest = (Images(images.pixels[i], images.labels[i]) for i in order.tensor_split([count]))
    return rest, held


def _digits(root: Path) -> Pair:
    from sklearn.datasets import load_digits

    pixels, labels = map(torch.tensor, load_digits(return_X_y=True))
    return _hold_out(Images(pixels.to(torch.uint8).view(-1, 1, 8, 8), labels), 497)


def _vision(kind: str, root: Path) -> Pair:
    from torchvision import datasets

    def part(train: bool) -> Images:
        found = getattr(datasets, kind)(root, train=train, download=True)
        pixels = found.data.reshape(*found.data.shape[:3], -1)  # (N, H, W, C)
        return Images(torch.as_tensor(pixels).permute(0, 3, 1, 2), torch.as_tensor(found.targets))

    return part(True), part(False)


def _tinyimagenet(root: Path) -> Pair:
    from torchvision.datasets.utils import download_url

    folder, archive = root / "tiny-imagenet-200", root / "tiny-imagenet-200.zip"
    if not folder.is_dir():
        download_url(f"http://cs231n.stanford.edu/{archive.name}", root)  # unless it is there
        with tempfile.TemporaryDirectory(dir=root) as draft:  # half a set never looks whole
            shutil.unpack_archive(archive, draft)
            os.replace(Path(draft, folder.name), folder)
    wnid = dict(np.loadtxt(folder / "val" / "val_annotations.txt", str, usecols=(0, 1), ndmin=2))
    files = [(file, file[0].split("/")) for file in _listing(folder)]
    found = [(False, path[1], file) for file, path in files if path[0] == "train"]
    found += [(True, wnid[path[-1]], file) for file, path in files if path[-1] in wnid]
    return _read(folder, found)


def _folder(files: tuple[File, ...], root: Path) -> Pair:
    split = any(path.startswith(("train/", "test/")) for path, *_ in files)
    paths = [(file, (file[0] if split else f"train/{file[0]}").split("/")) for file in files]
    found = [(p[0] == "test", p[1], f) for f, p in paths if p[0] in ("train", "test") and p[2:]]
    train, test = ([name for held, name, _ in found if held == side] for side in (False, True))
    if len(train) < 11 or len(set(train)) < 2:
        came = f"'{root}' holds {len(train)} training images of {len(set(train))} classes"
        raise ValueError(f"{came}; need 11 or more, of 2 or more, in {LAYOUT}.")
    if split and (odd := {*train} ^ {*test}):
        raise ValueError(f"'{root}' has class '{min(odd)}' in only one of train and test.")
    whole, held = _read(root, found)
    return (whole, held) if split else _hold_out(whole, len(whole) // 10)


def _listing(root: Path) -> tuple[File, ...]:
    if not root.is_dir():
        raise FileNotFoundError(f"'{root}' is not a folder; need one with {LAYOUT}.")
    paths = sorted(glob("**/*.*", root_dir=root, recursive=True))  # without hidden files
    stats = ((p, os.stat(root / p)) for p in paths if p.lower().endswith(SUFFIXES))
    return tuple((Path(p).as_posix(), stat.st_size, stat.st_mtime_ns) for p, stat in stats)


def _read(root: Path, found: list[tuple[bool, str, File]]) -> Pair:
    """The images found, decoded once: their pixels stay in `home()` until a file changes."""
    tests, names, files = zip(*sorted(found), strict=True)
    cache = home() / "decoded" / f"{hashlib.sha256(repr(files).encode()).hexdigest()}.pt"
    try:
        pixels = torch.load(cache, weights_only=True)
    except Exception:  # absent, or broken in some way
        pixels = _decode([root / path for path, *_ in files])
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as draft:
            torch.save(pixels, Path(draft, cache.name))
            os.replace(Path(draft, cache.name), cache)
    n, labels = tests.count(False), torch.from_numpy(np.unique(names, return_inverse=True)[1])
    return Images(pixels[:n], labels[:n]), Images(pixels[n:], labels[n:])


def _decode(files: list[Path]) -> Tensor:
    """Pixels (N, C, H, W); C is 1 where every image is grey, else 3."""
    size, channels = _image(files[0]).shape[2], 1
    pixels = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    with ThreadPool(min(8, os.cpu_count() or 1)) as pool:  # PIL releases the GIL
        for i, image in enumerate(pool.imap(_image, files, chunksize=64)):
            channels, h, w = max(channels, len(image)), *image.shape[1:]
            if (h, w) != (size, size):
                came = f"'{files[i]}' is {w} x {h} pixels"
                raise ValueError(f"{came}; need {size} x {size}, so resize all to one square size.")
            pixels[i] = image
    return pixels[:, :channels].contiguous()


def _image(path: Path) -> Tensor:
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise OSError("it has more than 8 bits a channel")
            array = np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    except OSError as error:
        raise ValueError(f"'{path}' is no image to use: {error}. Convert or remove it.") from error
    return torch.from_numpy(np.atleast_3d(array)).permute(2, 0, 1)


class Source(NamedTuple):
    """What is known of a data set before it is read."""

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
    "mnist": Source(partial(_vision, "MNIST"), 10, ((0.1307, 0.3081),), "MNIST/raw/*.gz"),
    "fashion_mnist": Source(partial(_vision, "FashionMNIST"), 10, FASHION, "FashionMNIST/raw/*.gz"),
    "cifar10": Source(partial(_vision, "CIFAR10"), 10, CIFAR, "cifar-10-python.tar.gz"),
    "cifar100": Source(partial(_vision, "CIFAR100"), 100, CIFAR, "cifar-100-python.tar.gz"),
    "tinyimagenet": Source(_tinyimagenet, 200, TINY, "tiny-imagenet-200.zip"),
}
