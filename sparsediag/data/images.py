"""Images that lie in files: class folders, decoded once and kept as one tensor."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from glob import glob
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sparsediag.core.atomic import atomic_write
from sparsediag.core.fingerprint import File, file_state, fingerprint_files
from sparsediag.core.short_repr import short_repr

SPLIT_SEED = 0  # one split for all runs, whatever a run's own seed
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
LAYOUT = f"train/<class>/* and test/<class>/*, or <class>/* ({', '.join(SUFFIXES)})"
Pair = tuple["Images", "Images"]  # for training and validation, for testing


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


def hold_out(images: Images, count: int) -> Pair:
    """Split off `count` random images, by a fixed seed; return the rest and those."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held_out, rest = (
        Images(images.pixels[i], images.labels[i]) for i in order.tensor_split([count])
    )
    return rest, held_out


def load_class_folders(files: tuple[File, ...], root: Path) -> Pair:
    """Load the images of PATH/train and PATH/test, or of PATH, a tenth held out for testing."""
    split = any(path.startswith(("train/", "test/")) for path, *_ in files)
    paths = [(file, (file[0] if split else f"train/{file[0]}").split("/")) for file in files]
    entries = [(p[0] == "test", p[1], f) for f, p in paths if p[0] in ("train", "test") and p[2:]]
    train, test = (
        [c for in_test, c, _ in entries if in_test is is_test] for is_test in (False, True)
    )
    if len(train) < 11 or len(set(train)) < 2:
        message = f"'{root}' holds {len(train)} training images of {len(set(train))} classes"
        raise ValueError(f"{message}; need 11 or more, of 2 or more, in {LAYOUT}.")
    if split and (unmatched := {*train} ^ {*test}):
        raise ValueError(f"'{root}' has class '{min(unmatched)}' in only one of train and test.")
    full_train, full_test = _decode_cached(root, entries)
    return (full_train, full_test) if split else hold_out(full_train, len(full_train) // 10)


def load_tinyimagenet(root: Path) -> Pair:
    """Load the official layout from the folder, the zip, or the network; `val` is the test set."""
    from torchvision.datasets.utils import download_url

    folder, archive = root / "tiny-imagenet-200", root / "tiny-imagenet-200.zip"
    if not folder.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as temp_dir:  # half a set never looks whole
            if not archive.exists():
                download_url(f"http://cs231n.stanford.edu/{archive.name}", temp_dir)
                os.replace(Path(temp_dir, archive.name), archive)
            shutil.unpack_archive(archive, temp_dir)
            os.replace(Path(temp_dir, folder.name), folder)
    wnid = dict(np.loadtxt(folder / "val" / "val_annotations.txt", str, usecols=(0, 1), ndmin=2))
    files = [(file, file[0].split("/")) for file in list_images(folder)]
    entries = [(False, path[1], file) for file, path in files if path[0] == "train"]
    entries += [(True, wnid[path[-1]], file) for file, path in files if path[-1] in wnid]
    return _decode_cached(folder, entries)


def list_images(root: Path) -> tuple[File, ...]:
    """Return all image files below a folder, with size and times."""
    if not root.is_dir():
        raise FileNotFoundError(f"'{root}' is not a folder; need one with {LAYOUT}.")
    paths = sorted(glob("**/*.*", root_dir=root, recursive=True))  # without hidden files
    images = (p for p in paths if p.lower().endswith(SUFFIXES))
    return tuple((p.replace(os.sep, "/"), *file_state(f"{root}/{p}")) for p in images)


def folder_digest(root: Path) -> str:
    """Return a digest of all image files' names and bytes, cached until a file changes."""
    root, files = root.resolve(), list_images(root)
    cache = home() / "contents" / hashlib.sha256(repr((root, files)).encode()).hexdigest()
    if not cache.is_file():
        with atomic_write(cache) as draft:
            draft.write_text(fingerprint_files(root, files))
    return cache.read_text()


def _decode_cached(root: Path, entries: list[tuple[bool, str, File]]) -> Pair:
    """Read the images; their decoded pixels are cached in `home()` until a file changes."""
    tests, names, files = zip(*sorted(entries), strict=True)
    cache = home() / "decoded" / f"{hashlib.sha256(repr(files).encode()).hexdigest()}.pt"
    try:
        pixels = torch.load(cache, weights_only=True)
    except Exception:  # absent, or broken in some way
        pixels = _decode([root / path for path, *_ in files])
        with atomic_write(cache) as draft:
            torch.save(pixels, draft)
    n, labels = tests.count(False), torch.from_numpy(np.unique(names, return_inverse=True)[1])
    return Images(pixels[:n], labels[:n]), Images(pixels[n:], labels[n:])


def _decode(files: list[Path]) -> Tensor:
    """Return the pixels (N, C, H, W); C is 1 if every image is grey, otherwise 3."""
    size, channels = _read_image(files[0]).shape[2], 1
    pixels = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    with ThreadPool(min(8, os.cpu_count() or 1)) as pool:  # PIL releases the GIL
        for i, image in enumerate(pool.imap(_read_image, files, chunksize=64)):
            channels, h, w = max(channels, len(image)), *image.shape[1:]
            if (h, w) != (size, size):
                message = f"'{files[i]}' is {w} x {h} pixels"
                raise ValueError(
                    f"{message}; need {size} x {size}, so resize all to one square size."
                )
            pixels[i] = image
    return pixels[:, :channels].contiguous()


def _read_image(path: Path) -> Tensor:
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise OSError("it has more than 8 bits a channel")
            array = np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    except OSError as error:
        raise ValueError(f"'{path}' is no image to use: {error}. Convert or remove it.") from error
    return torch.from_numpy(np.atleast_3d(array)).permute(2, 0, 1)
