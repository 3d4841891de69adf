"""All items, the figures and tables of the papers: their modules, their results, their files."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from functools import cache
from pathlib import Path
from textwrap import fill
from types import ModuleType
from typing import Any, NamedTuple

from figures import store
from figures.claims import Claim
from figures.measurement import Measurement
from figures.scales import Scale, network_and_data
from sparsediag.core.atomic import atomic_write
from sparsediag.diagnostics import plugins
from sparsediag.models import ghost
from sparsediag.plotting import style
from sparsediag.plotting.tables import Table
from training.config import Run

HERE = Path(__file__).parent


class Paper(NamedTuple):
    """A paper's title on the page, and the number of seeds that it trains."""

    title: str
    seeds: int


PAPERS = {
    "tost": Paper("ToST", 3),
    "lottery": Paper("The earlier paper on lottery tickets", 1),
    "pipeline": Paper("The pruning pipeline", 1),
    "own": Paper("Your own figures", 3),  # from plug-ins
}


def names() -> tuple[str, ...]:
    """Return all items as `paper/item`, in the order of the papers, and those of plug-ins."""
    return (*_names_of_papers(), *(f"own/{name}" for name in _own_modules()))


def _own_modules() -> dict[str, ModuleType]:
    """Return the modules of plug-ins that draw, by the names of their files."""
    modules = [module for module in (*plugins.PACKAGES.values(), *plugins.FILES.values()) if module]
    drawing = [module for module in modules if {"draw", "table"} & vars(module).keys()]
    return {Path(str(module.__file__)).stem: module for module in drawing}


@cache
def _names_of_papers() -> tuple[str, ...]:
    files = (
        file
        for paper in PAPERS
        for kind in ("fig*.py", "table*.py")
        for file in sorted((HERE / paper).glob(kind))
    )
    return tuple(f"{file.parent.name}/{file.stem}" for file in files)


def module(name: str) -> ModuleType:
    """Return the module of an item.

    It has a docstring, `draw` or `table`, and where they apply `MEASUREMENTS`, `CLAIMS`, and
    `SEEDS` if their number is not that of the paper.
    """
    if name.startswith("own/"):
        return _own_modules()[name.removeprefix("own/")]
    return importlib.import_module(f"figures.{name.replace('/', '.')}")


def about(name: str) -> tuple[str, str]:
    """Return title and description of an item."""
    title, _, text = inspect.cleandoc(module(name).__doc__ or "").partition("\n\n")
    return " ".join(title.split()), " ".join(text.split())


def claims(name: str) -> tuple[Claim, ...]:
    """Return the claims of an item."""
    return getattr(module(name), "CLAIMS", ())


@cache
def measurements(name: str, scale: Scale | None = None) -> dict[Any, Measurement]:
    """Return the measurements of an item by label, as in the paper or at a scale.

    Where a scale replaces two by the same one, the label of the first remains.
    """
    all_of_them: dict[Any, Measurement] = getattr(module(name), "MEASUREMENTS", {})
    if scale is None:
        return all_of_them
    seeds = getattr(module(name), "SEEDS", PAPERS[name.partition("/")[0]].seeds)
    unique: dict[str, tuple[Any, Measurement]] = {}
    for label, measurement in all_of_them.items():
        run = measurement.run
        if scale.draws(name) and scale.includes(run) and not (scale.is_paper and run.seed >= seeds):
            key = f"{scale.adapt(run).id} {scale.key(measurement)}"
            unique.setdefault(key, (label, measurement))
    return dict(unique.values())


def at_scale(scale: Scale) -> list[str]:
    """Return the items that a scale can draw."""
    return [name for name in names() if measurements(name, scale) or not measurements(name)]


def results(name: str, scale: Scale, out: Path) -> dict[Any, Any]:
    """Return the existing results of an item by label."""
    return {
        label: store.load(measurement, scale, out)
        for label, measurement in measurements(name, scale).items()
        if store.exists(measurement, scale, out)
    }


def missing(name: str, scale: Scale, out: Path) -> list[Measurement]:
    """Return the measurements of an item without a result."""
    return [m for m in measurements(name, scale).values() if not store.exists(m, scale, out)]


@cache
def _code_digest() -> bytes:
    sha = hashlib.sha256()
    for file in (*sorted(HERE.rglob("*.py")), Path(style.__file__), Path(ghost.__file__)):
        sha.update(file.read_bytes())
    return sha.digest()


def fingerprint(name: str, scale: Scale, out: Path) -> str:
    """Return a hash of all that decides a picture: code, scale and existing measurements."""
    sha = hashlib.sha256(_code_digest() + f"{name} {scale!r}".encode())
    sha.update(inspect.getsource(module(name)).encode())
    for label, measurement in measurements(name, scale).items():
        exists = store.exists(measurement, scale, out)
        sha.update(f"{label} {scale.key(measurement)} {exists}".encode())
    return sha.hexdigest()[:16]


def is_drawn(name: str, scale: Scale, out: Path) -> bool:
    """Return whether the files of an item exist and are up to date."""
    from PIL import Image

    stem = out / "figures" / name
    formats = ("png", "pdf", *(("md", "tex", "csv") if hasattr(module(name), "table") else ()))
    if not all(stem.with_suffix(f".{suffix}").exists() for suffix in formats):
        return False
    with Image.open(stem.with_suffix(".png")) as image:
        return bool(image.info.get("sparsediag") == fingerprint(name, scale, out))


def draw(name: str, scale: Scale, out: Path) -> None:
    """Draw an item from the existing results as PDF and PNG, a table also as text."""
    item, measured = module(name), results(name, scale, out)
    if measurements(name) and not measured:
        raise ValueError(f"{name}: no results at scale {scale.name} to draw it from")
    stem, text = out / "figures" / name, caption(name, scale, out)
    with style.style():
        if hasattr(item, "table"):
            table: Table = item.table(measured, scale)
            markdown = f"{item.__doc__}\n{table.title}\n\n{table.markdown()}\n\n{text}\n"
            files = {"md": markdown, "tex": table.latex() + "\n", "csv": table.csv()}
            for suffix, content in files.items():
                with atomic_write(stem.with_suffix(f".{suffix}")) as draft:
                    draft.write_text(content)
            fig = table.figure()
        else:
            fig = item.draw(measured, scale)
        lines = [fill(line, round(27 * fig.get_figwidth())) for line in text.splitlines()]
        fig.supxlabel("\n".join(lines), fontsize=4.5, color="#555555")
    metadata = {
        "Description": f"{item.__doc__}\n{text}",
        "sparsediag": fingerprint(name, scale, out),
    }
    style.save(fig, stem, formats=("pdf", "png"), **metadata)


def caption(name: str, scale: Scale, out: Path) -> str:
    """Return what was trained for an item, and how much is missing."""
    wanted = measurements(name, scale)
    if not wanted:
        return "from the code itself"
    runs = {scale.adapt(m.run): m.run for m in wanted.values()}
    seeds = 1 + max(run.seed for run in runs)
    seeds_text = "1 seed" if seeds == 1 else f"up to {seeds} seeds"
    text = f"scale {scale.name}: {_trainings(list(runs))}, {seeds_text}"
    if not scale.is_paper:
        text += f"\nthe paper: {_trainings([m.run for m in measurements(name).values()])}"
    if lacking := len(missing(name, scale, out)):
        text += f"\n{lacking} of {len(wanted)} measurements are missing"
    return text


def _trainings(runs: list[Run]) -> str:
    epochs = " or ".join(str(n) for n in sorted({run.optim.epochs for run in runs}))
    return f"{'; '.join(sorted({network_and_data(run) for run in runs}))}; {epochs} epochs"
