"""Image files for tests: noise that the name of a file seeds, or one colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, *, mode: str = "RGB", size: tuple[int, int] = (8, 8), value=None) -> None:
    """Write one image file; without a value, noise that its name seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if value is None:
        noise = np.random.default_rng(list(path.name.encode()))
        value = noise.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(value).convert(mode).save(path)
    else:
        Image.new(mode, size, value).save(path)


def pictures(root: Path, count: int, classes=("cat", "dog"), **options) -> Path:
    """Write `count` images for each class; return the folder."""
    for name in classes:
        for i in range(count):
            picture(root / name / f"{name}{i:03}.png", **options)
    return root
