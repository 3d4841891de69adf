"""Items: the figures and tables of the papers, and the files that are drawn of them."""

from __future__ import annotations

import hashlib
import importlib
from functools import cache
from pathlib import Path
from textwrap import fill
from types import ModuleType
from typing import Any

from figures import store, tables
from figures.measurement import Need
from figures.scales import Scale, named
from sparsediag.core.atomic import atomic_write
from sparsediag.models import ghost
from sparsediag.plotting import style
from training.config import Run

HERE = Path(__file__).parent
PAPERS = ("tost", "lottery", "pipeline")


@cache
def names() -> tuple[str, ...]:
    """All items, as `paper/item`, in the order of the papers."""
    found = [
        f"{paper}/{file.stem}"
        for paper in PAPERS
        for file in sorted((HERE / paper).glob("[!_]*.py"))
    ]
    return tuple(found)


def at(scale: Scale) -> list[str]:
    """The items that a scale has something for."""
    return [name for name in names() if needs(name, scale) or not item(name).NEEDS]


def item(name: str) -> ModuleType:
    """The module of an item: its docstring, `NEEDS`, `CLAIMS`, and `draw` or `table`."""
    return importlib.import_module(f"figures.{name.replace('/', '.')}")


@cache
def needs(name: str, scale: Scale) -> dict[Any, Need]:
    """Return what an item needs at a scale; where two labels come to the same, the first."""
    found: dict[str, tuple[Any, Need]] = {}
    seeds = getattr(item(name), "SEEDS", 3)  # of the paper itself
    for label, need in item(name).NEEDS.items():
        if scale.takes(need.run) and not (scale.whole and need.run.seed >= seeds):
            found.setdefault(f"{scale.run(need.run).id} {scale.key(need)}", (label, need))
    return dict(found.values())


def results(name: str, scale: Scale, out: Path) -> dict[Any, Any]:
    """The measurements of an item that are there."""
    return {
        label: store.load(need, scale, out)
        for label, need in needs(name, scale).items()
        if store.there(need, scale, out)
    }


@cache
def _code() -> bytes:
    """A digest of the code that draws."""
    sha = hashlib.sha256()
    for file in (*sorted(HERE.rglob("*.py")), Path(style.__file__), Path(ghost.__file__)):
        sha.update(file.read_bytes())
    return sha.digest()


def stamp(name: str, scale: Scale, out: Path) -> str:
    """Return what a picture was drawn from: the code that draws, the scale, the measurements."""
    sha = hashlib.sha256(_code() + f"{name} {scale!r}".encode())
    for label, need in needs(name, scale).items():
        sha.update(f"{label} {scale.key(need)} {store.there(need, scale, out)}".encode())
    return sha.hexdigest()[:16]


def drawn(name: str, scale: Scale, out: Path) -> bool:
    """Return whether the pictures are there and show just this."""
    from PIL import Image

    stem = out / "figures" / name
    forms = ("png", "pdf", *(("md", "tex", "csv") if hasattr(item(name), "table") else ()))
    if not all(stem.with_suffix(f".{form}").exists() for form in forms):
        return False
    with Image.open(stem.with_suffix(".png")) as image:
        return bool(image.info.get("sparsediag") == stamp(name, scale, out))


def missing(name: str, scale: Scale, out: Path) -> list[Need]:
    """The measurements of an item that are not there."""
    return [need for need in needs(name, scale).values() if not store.there(need, scale, out)]


def draw(name: str, scale: Scale, out: Path) -> None:
    """Draw an item from the measurements that are there: PDF and PNG, a table also as text."""
    module, found = item(name), results(name, scale, out)
    if module.NEEDS and not found:
        raise ValueError(f"nothing to draw it from at scale {scale.name}")
    stem, caption = out / "figures" / name, told(name, scale, out)
    about = {
        "Description": f"{module.__doc__}\n{caption}",
        "sparsediag": stamp(name, scale, out),
    }
    if hasattr(module, "table"):
        table: tables.Table = module.table(found, scale)
        texts = {"md": f"{module.__doc__}\n{table.title}\n\n{table.markdown()}\n\n{caption}\n"}
        texts |= {"tex": table.latex() + "\n", "csv": table.csv()}
        for form, text in texts.items():
            with atomic_write(stem.with_suffix(f".{form}")) as draft:
                draft.write_text(text)
    with style.style():
        fig = table.figure() if hasattr(module, "table") else module.draw(found, scale)
        lines = [fill(line, round(27 * fig.get_figwidth())) for line in caption.splitlines()]
        fig.supxlabel("\n".join(lines), fontsize=4.5, color="#555555")
    style.save(fig, stem, formats=("pdf", "png"), **about)


def told(name: str, scale: Scale, out: Path) -> str:
    """The caption: what was trained here, and what is missing."""
    wanted = needs(name, scale)
    if not wanted:
        return "from the code itself"
    runs = {scale.run(need.run): need.run for need in wanted.values()}
    seeds = 1 + max(run.seed for run in runs)
    spread = "1 seed" if seeds == 1 else f"up to {seeds} seeds"
    text = f"scale {scale.name}: {_nets(list(runs))}, {spread}"
    if not scale.whole:
        text += f"\nthe paper: {_nets([need.run for need in item(name).NEEDS.values()])}"
    if lost := len(missing(name, scale, out)):
        text += f"\n{lost} of {len(wanted)} measurements are missing"
    return text


def _nets(runs: list[Run]) -> str:
    epochs = " or ".join(str(n) for n in sorted({run.optim.epochs for run in runs}))
    return f"{'; '.join(sorted({named(run) for run in runs}))}; {epochs} epochs"
