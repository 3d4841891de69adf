"""The files of a command: the result, its pictures, exports and interactive page."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsediag.core.errors import unknown_name
from sparsediag.diagnostics.result import Result
from sparsediag.plotting import style

PICTURES = ("png", "pdf", "svg")
EXPORTS = ("csv", "vtk")
INVISIBLE = {"device", "memory", "mode", "model", "model_options", "shard", "workers"}
LONGEST = 80  # letters of options in a file's name


def parse_formats(text: str, *, exports: Sequence[str] = ()) -> list[str]:
    """Return the formats in a comma-separated list: pictures, and those of `exports`.

    >>> parse_formats("png, pdf")
    ['png', 'pdf']
    """
    formats = [word.strip() for word in text.split(",") if word.strip()]
    for name in formats:
        if name not in (*PICTURES, *EXPORTS, *exports):
            raise ValueError(unknown_name("file format", name, (*PICTURES, *EXPORTS, *exports)))
        if name not in (*PICTURES, *exports):
            possible = " and ".join(exports) or "none"
            raise ValueError(
                f"--formats {name}: this result has no such export; it has: {possible}"
            )
    return formats


def options_in_name(options: Mapping[str, Any]) -> str:
    """Return the end of a file's name that tells the options, so that no other result has it.

    Options that do not change the result (`INVISIBLE`) are left out.

    >>> options_in_name({"top": 3, "density": True, "mode": "tape", "mask": "masks/a b.pt"})
    '-top=3-density-mask=a_b.pt'
    """
    words = []
    for key, value in options.items():
        if key in INVISIBLE or value is None or value is False:
            continue
        text = re.sub(r"[^\w.+,:-]+", "_", Path(str(value)).name)
        words.append("-" + key.replace("_", "-") + ("" if value is True else f"={text}"))
    name = "".join(words)
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256(repr(options).encode()).hexdigest()[:8]}"
    return name


def check(out: Path) -> Path:
    """Return the path of a result after checking its ending and that its folder can be written.

    Another ending is refused, since the pictures are named after the result.
    """
    if out.suffix != ".npz":
        raise ValueError(f"--out {out}: results are written as .npz; use that ending")
    folder = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):  # missing folders are made with the result
            pass
    except OSError as error:
        raise ValueError(
            f"{out} cannot be written: {error.strerror}: {folder}; use --out with another folder"
        ) from None
    return out


def write(result: Result, out: Path, *, formats: Sequence[str]) -> list[Path]:
    """Write a result to `out`, and its pictures and exports beside it; return their paths."""
    files, stem = [result.save(check(out))], out.with_suffix("")
    if not result.complete:
        return files
    with style.style():
        for ending, figure in result.figures().items():
            pictures = tuple(name for name in formats if name in PICTURES)
            name = f"{stem.name}-{ending}" if ending else stem.name
            style.save(figure, stem.with_name(name), formats=pictures)
            files += [stem.with_name(f"{name}.{picture}") for picture in pictures]
    surface = result.surface()
    if surface is not None:
        style.write_html(surface, out.with_suffix(".html"))
        files.append(out.with_suffix(".html"))
    exports = result.exports()
    return files + [exports[n](out.with_suffix(f".{n}")) for n in formats if n in exports]
