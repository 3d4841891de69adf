"""Write the files of a command: the result, pictures, tables, an interactive page."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from sparsediag.core.errors import unknown_name
from sparsediag.diagnostics.comparison import Comparison
from sparsediag.diagnostics.inputscape import Inputscape
from sparsediag.diagnostics.landscape import Landscape
from sparsediag.diagnostics.result import Result
from sparsediag.plotting import style
from sparsediag.plotting.landscape import plot_comparison
from sparsediag.surfaces.export import write_csv, write_vtk

PICTURES = ("png", "pdf", "svg")
TABLES: dict[str, Callable[[Landscape, Path], Path]] = {"csv": write_csv, "vtk": write_vtk}


def formats(words: str, *, tables: Sequence[str] = ()) -> list[str]:
    """The kinds of files in a list parted by commas: pictures, and tables where there are any.

    >>> formats("png, pdf")
    ['png', 'pdf']
    """
    kinds = [word.strip() for word in words.split(",") if word.strip()]
    for kind in kinds:
        if kind not in (*PICTURES, *TABLES):
            raise ValueError(unknown_name("kind of file", kind, (*PICTURES, *TABLES)))
        if kind in TABLES and kind not in tables:
            has = " and ".join(tables) or "none"
            raise ValueError(f"--formats {kind}: this result has no such file; tables: {has}")
    return kinds


def checked(out: Path) -> Path:
    """The result's file, if its name says so and its folder can be written.

    Another ending could be that of the picture beside it.
    """
    if out.suffix != ".npz":
        raise ValueError(f"--out {out}: results are written as .npz; use that ending")
    there = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):  # the folders on the way come with the result
            pass
    except OSError as error:
        raise ValueError(
            f"{out} cannot be written: {error.strerror}: {there}; use --out with another folder"
        ) from None
    return out


def write(result: Result, out: Path, *, kinds: list[str]) -> list[Path]:
    """Write `out` and what else there is of the result, beside it and by its name."""
    files, stem = [result.save(checked(out))], out.with_suffix("")
    if isinstance(result, Landscape) and not result.status.all():
        return files  # a shard is no picture
    pictures = tuple(kind for kind in kinds if kind in PICTURES)
    with style.style():
        files += _save(cast(Any, result.plot().figure), stem, pictures)
    if isinstance(result, Landscape | Inputscape):
        style.write_html(result.surface(), out.with_suffix(".html"))
        files.append(out.with_suffix(".html"))
    if isinstance(result, Comparison) and len(result.axes) == 2:
        with style.style():
            files += _save(plot_comparison(result), stem.with_name(f"{stem.name}-panels"), pictures)
    if isinstance(result, Landscape):
        files += [TABLES[k](result, out.with_suffix(f".{k}")) for k in kinds if k in TABLES]
    return files


def _save(figure: Any, stem: Path, pictures: tuple[str, ...]) -> list[Path]:
    style.save(figure, stem, formats=pictures)
    return [stem.with_name(f"{stem.name}.{kind}") for kind in pictures]
