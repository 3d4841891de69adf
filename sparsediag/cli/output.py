"""The files of a command: the result, its pictures, exports and interactive page."""

from __future__ import annotations

import glob
import hashlib
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsediag.core.errors import unknown_name

if TYPE_CHECKING:
    from sparsediag.diagnostics.result import Result

PICTURES = ("png", "pdf", "svg")
EXPORTS = ("csv", "vtk")
INVISIBLE = {"device", "memory", "mode", "model", "model_options", "shard", "workers"}
NOT_CONVERGED = 3  # exit code
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

    Options that do not change the result (`INVISIBLE`) are left out, and all but the last two parts
    of a path.

    >>> options_in_name({"top": 3, "density": True, "mode": "tape", "mask": "runs/s1/a b.pt"})
    '-top=3-density-mask=s1_a_b.pt'
    """
    words = []
    for key, value in options.items():
        if key in INVISIBLE or value is None or value is False:
            continue
        text = re.sub(r"[^\w.+,:-]+", "_", "_".join(Path(str(value)).parts[-2:]))
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


def check_page(out: Path) -> bool:
    """Return whether a report replaces an older one.

    Raises:
        ValueError: If the page there is the picture of a result.
    """
    from sparsediag.diagnostics.result import Result  # imports torch

    result = out.with_suffix(".npz")
    if out.exists() and result.exists() and Result.load(result).surface() is not None:
        raise ValueError(f"--out {out}: there is the picture of {result}; give another name")
    return out.exists()


def write(result: Result, out: Path, *, formats: Sequence[str]) -> dict[Path, bool]:
    """Write a result to `out`, and its pictures and exports beside it.

    A picture of that name that is there without `out` belongs to something else, and is not
    replaced: the new one has the kind of the result in its name.

    Returns:
        The files, and whether each replaced an older one.
    """
    from sparsediag.plotting import interactive, style  # import matplotlib

    replaces, kind = out.exists(), type(result).__name__.lower()
    written = {out: replaces}
    result.save(out)
    if not result.complete:
        return written

    def beside(ending: str) -> Path:
        file = out.with_name(f"{out.stem}{ending}")
        if file.exists() and not replaces:
            file = out.with_name(f"{out.stem}-{kind}{ending}")
        written[file] = file.exists()
        return file

    with style.style():
        for panel, figure in result.figures().items():
            for picture in [name for name in formats if name in PICTURES]:
                file = beside(f"-{panel}.{picture}" if panel else f".{picture}")
                style.save(figure, file.with_suffix(""), formats=(picture,))
    surface = result.surface()
    if surface is not None:
        title, page = f"{type(result).__name__}: {result.title}", beside(".html")
        interactive.write_page(surface, page, title=title, about=result.provenance)
    exports = result.exports()
    for name in [name for name in formats if name in exports]:
        exports[name](beside(f".{name}"))
    return written


def exit_code(result: Result) -> int:
    """Return 0, or 3 and a line on stderr if the result did not converge."""
    if result.reliable:
        return 0
    print("not converged: see the doubts for what to do (exit code 3)", file=sys.stderr)
    return NOT_CONVERGED


def describe_files(written: Mapping[Path, bool]) -> list[str]:
    """Return lines that name the new files, and those that replaced older ones.

    >>> describe_files({Path("a.npz"): True, Path("a.png"): False, Path("a.html"): False})
    ['wrote a.png a.html', 'replaced a.npz']
    """
    files = {
        verb: [str(file) for file, replaced in written.items() if replaced is old]
        for verb, old in (("wrote", False), ("replaced", True))
    }
    return [" ".join([verb, *names]) for verb, names in files.items() if names]


@contextmanager
def unfinished_work(file: Path) -> Iterator[None]:
    """Name the files of unfinished work, which begin with `file`, where there are some.

    Before the block a line on stderr says that the work continues; an interrupt says how to.

    Raises:
        KeyboardInterrupt: With a message, if the block was interrupted.
    """
    if unfinished_files(file):
        print(f"continuing the unfinished work in {file}", file=sys.stderr)
    try:
        yield
    except KeyboardInterrupt:
        message = "interrupted"
        if unfinished_files(file):
            message += f": {file} holds the work so far; the same command continues it"
        raise KeyboardInterrupt(message) from None


def unfinished_files(file: Path) -> list[Path]:
    """Return the files, or those in a folder, whose names begin with that of `file`."""
    if file.is_dir():
        return [*file.iterdir()]
    return [*file.parent.glob(f"{glob.escape(file.name)}*")]
