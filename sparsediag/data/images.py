"""Images and their classes: as one tensor, or in files that are decoded when they are asked for."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sparsediag.core.atomic import atomic_write
from sparsediag.core.fingerprint import File, file_state
from sparsediag.core.progress import track
from sparsediag.core.short_repr import short_repr

SPLIT_SEED = 0  # one split for all runs, whatever a run's own seed
MOMENTS_OF = 2000  # images that mean and std are computed from where images are resized
Moments = list[tuple[float, float]]  # mean and std of each channel, of full scale


def home() -> Path:
    """Return the folder of data sets: `$SPARSEDIAG_DATA`, or `sparsediag` in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "sparsediag"
    return Path(os.environ.get("SPARSEDIAG_DATA") or cache).expanduser()


@dataclass(frozen=True, eq=False)
class Images:
    """Some images and their classes, on one device."""

    pixels: Tensor  # (N, C, H, W), uint8
    labels: Tensor  # (N,), int64

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def take(self, indices: Tensor) -> Tensor:
        """Return the pixels of some images, (n, C, H, W)."""
        return self.pixels[indices]

    def subset(self, indices: Tensor) -> Images:
        """Return some of the images."""
        return Images(self.pixels[indices], self.labels[indices])

    def to(self, device: torch.device) -> Images:
        """Return the images on a device."""
        return Images(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images in files: `take` decodes some, `pixels` all of them.

    Attributes:
        root: The folder of the files.
        files: Their paths below it, with size and times.
        labels: Their classes, (N,), int64, on the device that the pixels go to.
        channels: 1 or 3.
        size: Height and width of the pixels.
        resize: Whether to resize and cut images of another size; otherwise they are refused.
    """

    root: Path
    files: tuple[File, ...]
    labels: Tensor
    channels: int
    size: int
    resize: bool

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.files)

    def take(self, indices: Tensor) -> Tensor:
        """Decode some images; return their pixels, (n, C, H, W)."""
        if self.cache("decoded", ".npy").is_file():
            return self.decode()[indices.cpu()].to(self.labels.device)
        pixels = torch.empty((len(indices), *self.shape), dtype=torch.uint8)
        self._decode(indices.tolist(), pixels)
        return pixels.to(self.labels.device)

    def subset(self, indices: Tensor) -> ImageFiles:
        """Return some of the images."""
        files = tuple(self.files[i] for i in indices.tolist())
        return replace(self, files=files, labels=self.labels[indices])

    def to(self, device: torch.device) -> ImageFiles:
        """Return the images with a device for their pixels."""
        return replace(self, labels=self.labels.to(device))

    @cached_property
    def pixels(self) -> Tensor:
        """All pixels, (N, C, H, W), on the device; on the CPU they are mapped from a file."""
        return self.decode().to(self.labels.device)

    def decode(self, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """Decode all images; return their pixels, (N, C, H, W), mapped from a file.

        The file is kept in `home()`, and written anew when an image changes.

        Args:
            progress: Called as `progress(done, all)` while it is written.
        """
        cache = self.cache("decoded", ".npy")
        try:
            pixels = np.load(cache, mmap_mode="c")
        except (OSError, ValueError, EOFError):  # absent or broken
            shape = (len(self), *self.shape)
            _check_space(math.prod(shape))
            with atomic_write(cache) as draft:
                decoded = np.lib.format.open_memmap(draft, "w+", np.uint8, shape)
                self._decode(range(len(self)), torch.from_numpy(decoded), progress)
                decoded.flush()
            pixels = np.load(cache, mmap_mode="c")
        return torch.from_numpy(pixels)

    def cache(self, kind: str, ending: str) -> Path:
        """Return the path in `home()` of what is computed from these files."""
        return home() / kind / f"{self._digest}{ending}"

    @cached_property
    def _digest(self) -> str:
        content = (self.root.resolve(), self.files, self.shape, self.resize)
        return hashlib.sha256(repr(content).encode()).hexdigest()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.size, self.size

    def _decode(
        self,
        indices: Iterable[int],
        pixels: Tensor,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Decode images into the rows of a tensor (n, C, H, W)."""
        files = (self.files[i] for i in indices)
        with ThreadPool(min(8, os.cpu_count() or 1)) as pool:  # PIL releases the GIL
            images = track(pool.imap(self._read, files, 16), progress, len(pixels))
            for row, image in zip(pixels, images, strict=True):
                row.copy_(image)

    def _read(self, file: File) -> Tensor:
        path = self.root / file[0]
        if file_state(path) != file[1:]:
            raise ValueError(f"'{path}' has changed since its folder was read; start again")
        resize = self.size if self.resize else None
        image = torch.from_numpy(np.atleast_3d(read_image(path, self.channels, resize)))
        height, width = image.shape[:2]
        if (height, width) != (self.size, self.size):
            raise ValueError(
                f"'{path}' is {width} x {height} pixels; need {self.size} x {self.size}, as the "
                "first has. --size 224 (in a run file, size = 224) makes all of one size; give "
                "that of the net's inputs"
            )
        return image.permute(2, 0, 1)


AnyImages = Images | ImageFiles
Pair = tuple[AnyImages, AnyImages]


def hold_out(images: AnyImages, count: int) -> Pair:
    """Split off `count` random images, by a fixed seed; return the rest and those."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held_out, rest = (images.subset(i) for i in order.tensor_split([count]))
    return rest, held_out


def moments(images: AnyImages, scale: float) -> Moments:
    """Return mean and std of each channel over the images.

    Of files that are resized, which may be many and large, `MOMENTS_OF` random ones are enough. The
    numbers are kept in `home()`.

    Args:
        images: The images.
        scale: Full scale of a pixel.

    Raises:
        ValueError: If there is no image.
    """
    if not len(images):
        raise ValueError("no training images to normalise by: choose normalise imagenet or none")
    cache = images.cache("moments", ".json") if isinstance(images, ImageFiles) else None
    if cache and cache.is_file():
        return [(mean, std) for mean, std in json.loads(cache.read_text())]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SPLIT_SEED))
    count = len(images)
    if isinstance(images, ImageFiles):
        if images.resize:
            count = min(count, MOMENTS_OF)
        else:
            images.decode()  # all are needed, and a training needs them again
    counts = sum(
        torch.stack([torch.bincount(c.flatten(), minlength=256) for c in pixels.unbind(1)])
        for pixels in map(images.take, order[:count].split(500))
    )
    assert isinstance(counts, Tensor)
    found = list(_moments_of_counts(counts.cpu().numpy(), scale))
    if cache:
        with atomic_write(cache) as draft:
            draft.write_text(json.dumps(found))
    return found


def _check_space(needed: int) -> None:
    """Raise OSError if the disk of `home()` has too little space for `needed` bytes."""
    home().mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(home()).free) < needed:
        raise OSError(
            f"the decoded images need {needed / 1e9:.1f} GB in '{home()}', which has "
            f"{free / 1e9:.1f} GB left; choose a smaller size, or another folder by SPARSEDIAG_DATA"
        )


def _moments_of_counts(counts: np.ndarray, scale: float) -> Iterator[tuple[float, float]]:
    """Yield mean and std of each channel, whose levels 0 to 255 were counted, (C, 256)."""
    levels = np.arange(256) / scale
    for count in counts:
        mean = float(np.average(levels, weights=count))
        variance = float(np.sum(count * (levels - mean) ** 2) / max(1, count.sum() - 1))
        yield mean, variance**0.5


def read_image(path: Path, channels: int, size: int | None = None) -> np.ndarray:
    """Decode an image of 8 bits a channel; return its pixels, (H, W) if grey, else (H, W, 3).

    Transparency is left out, and a rotation in the EXIF data is not applied, as in torchvision's
    `ImageFolder`; `size` is torchvision's `Resize(size)` and `CenterCrop(size)`.

    Args:
        path: The file.
        channels: 1 for grey, 3 for colour.
        size: Length of the shorter side after resizing, and of both after cutting out the middle.

    Raises:
        ValueError: If it cannot be decoded; the message names it.
    """
    try:
        with Image.open(path) as file:
            if file.mode[0] in "IF":
                raise OSError("it has more than 8 bits a channel")
            image: Image.Image = file
            if image.mode == "P":  # PIL warns of some palettes that become RGB at once
                image = image.convert("RGBA")
            image = image.convert("L" if channels == 1 else "RGB")
            return np.array(_resize(image, size) if size else image)
    except Exception as error:  # PIL has many kinds, and zlib others
        raise ValueError(f"'{path}' is no image to use: {error}. Convert or remove it.") from error


def _resize(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size`, and cut out the middle."""
    width, height = image.size
    short = min(width, height)
    if short != size:
        width, height = int(size * width / short), int(size * height / short)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))
