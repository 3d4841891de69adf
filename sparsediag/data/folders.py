"""Folders of images: their layout, their classes and their splits."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from glob import glob
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sparsediag.core.atomic import atomic_write
from sparsediag.core.fingerprint import File, file_state, fingerprint_files
from sparsediag.data.images import AnyImages, ImageFiles, Pair, hold_out, home

SPLITS = {  # name of a folder, or of a split as it is typed -> split
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
LAYOUT = "train/<class>/* with val/<class>/* or test/<class>/* or both, or <class>/* alone"
Entry = tuple[str, File]  # class and file


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
    # earlier versions did not read validation images beside those of test/: another training
    read_anew = {"validation", "test"} <= {*_folders(files).values()}
    return cache.read_text() + ("+validation" if read_anew else "")


def read_folder(
    root: Path, files: tuple[File, ...], size: int | None
) -> tuple[list[str], dict[str, AnyImages], dict[str, str]]:
    """Return the classes, the images of each split, and notes on splits.

    A split without a folder of its own is a random tenth of the training images. Classes are
    numbered by the sorted names of the class folders in train/; other splits may lack some.

    Args:
        root: The folder.
        files: Its images, of `list_images`.
        size: Height and width to resize and cut them to; None if all have one square size.

    Raises:
        ValueError: If there are too few images, or a class is not in train/.
    """
    entries = _entries(files)
    everything = [*chain(*entries.values())]
    names = {split: {name for name, _ in part} for split, part in entries.items()}
    classes = sorted(names["train"] or {name for name, _ in everything})
    count, no_train = len(entries["train"]), everything and not entries["train"]
    if len(classes) < 2 or (count < 11 and not no_train):
        inner = [name for name in classes if (root / name / "train").is_dir()]
        hint = f" Or did you mean folder:{root / inner[0]}?" if inner else ""
        message = f"'{root}' holds {count} training images of {len(names['train'])} classes"
        raise ValueError(
            f"{message}; need 11 or more, of 2 or more, in {LAYOUT} ({', '.join(SUFFIXES)}).{hint}"
        )
    for split in ("validation", "test"):
        if surplus := sorted(names[split].difference(classes)):
            raise ValueError(
                f"'{root}' has class '{surplus[0]}' in its {split} images only; need each class in "
                "train/, whose folders' names number the classes"
            )
    whole = _image_files(root, everything, classes, size)
    ranges = torch.arange(len(everything)).split([len(part) for part in entries.values()])
    parts: dict[str, AnyImages] = {
        split: whole.subset(r) for split, r in zip(entries, ranges, strict=True)
    }
    notes = {}
    for split in ("test", "validation"):
        if not entries[split]:
            parts["train"], parts[split] = hold_out(parts["train"], len(parts["train"]) // 10)
            notes[split] = held_out_note(split, f"folder:{root}")
        elif missing := sorted({*classes} - names[split]):
            some = ", ".join(missing[:3]) + " and others" * (len(missing) > 3)
            notes[split] = f"{split}: no image of class {some}; classes are numbered as in train/"
    return classes, parts, notes


def held_out_note(split: str, name: str) -> str:
    """Return a note on a split that was taken from the training images."""
    return (
        f"{split}: a random tenth of the training images of {name}, which has none of its own; "
        "a net that was trained on all of them has seen it"
    )


def read_tinyimagenet(root: Path) -> Pair:
    """Read the official layout from the folder, the zip, or the network; `val` is the test set."""
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
    train = sorted((path[1], file) for file, path in files if path[0] == "train")
    test = sorted((wnid[path[-1]], file) for file, path in files if path[-1] in wnid)
    whole = _image_files(folder, train + test, sorted({*wnid.values(), *dict(train)}), None)
    first, second = torch.arange(len(whole)).tensor_split([len(train)])
    return whole.subset(first), whole.subset(second)


def _entries(files: Iterable[File]) -> dict[str, list[Entry]]:
    """Return class and file of the images of each split, sorted; all in train without splits."""
    splits = _folders(files)
    entries: dict[str, list[Entry]] = {"train": [], "validation": [], "test": []}
    for file in files:
        first, *rest = file[0].split("/")
        split, path = (splits.get(first), rest) if splits else ("train", [first, *rest])
        if split and path[1:]:
            entries[split].append((path[0], file))
    return {split: sorted(part) for split, part in entries.items()}


def _folders(files: Iterable[File]) -> dict[str, str]:
    """Return the split of each folder in `SPLITS` that holds folders with images."""
    tops = {path.split("/")[0] for path, *_ in files if path.count("/") > 1}
    folders = {folder: split for folder, split in SPLITS.items() if folder in tops}
    names = [folder for folder, split in folders.items() if split == "validation"]
    if names[1:]:
        raise ValueError(f"both {names[0]}/ and {names[1]}/ hold images; keep one of them")
    return folders


def _image_files(
    root: Path, entries: list[Entry], classes: list[str], size: int | None
) -> ImageFiles:
    """Return images, in colour unless every one is grey."""
    number = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([number[name] for name, _ in entries])
    files = tuple(file for _, file in entries)
    headers = (_read_header(root / path) for path, *_ in files)
    channels = 1 if all(mode == "L" for mode, _ in headers) else 3  # stops at the first in colour
    first = size or _read_header(root / files[0][0])[1]
    return ImageFiles(root, files, labels, channels, first, resize=size is not None)


def _read_header(path: Path) -> tuple[str, int]:
    """Return the mode and the width of an image."""
    try:
        with Image.open(path) as image:
            return image.mode, image.width
    except Exception as error:
        raise ValueError(f"'{path}' is no image to use: {error}. Convert or remove it.") from error
