"""List everything that a run file can name, with a line each."""

from __future__ import annotations

import inspect
import sys

from sparsediag.data.datasets import DATASETS
from sparsediag.models import MODELS
from training.config import RECIPES
from training.masks import METHODS
from training.tweaks import GROUPS, TWEAKS


def catalogue() -> str:
    """Recipes, masks, tweaks, nets and data."""
    recipes = {p.stem: p.read_text().partition("\n")[0][2:] for p in RECIPES.glob("*.toml")}
    groups = {name: ", ".join(parts) for name, parts in GROUPS.items()}
    data = {
        name: f"{source.classes} classes, {'grey' if len(source.moments) == 1 else 'colour'}"
        for name, source in DATASETS.items()
    }
    return "\n\n".join(
        [
            _list("Recipes", dict(sorted(recipes.items()))),
            _list("Masks (mask.method)", {n: _first(kind) for n, kind in METHODS.items()}),
            _list("Tweaks (tweaks)", {n: _first(kind) for n, kind in TWEAKS.items()}),
            _list("Groups of tweaks", groups),
            _list("Nets (model.name)", _nets()),
            _list("Data (data)", data | {"folder:PATH": "class folders of images"}),
        ]
    )


def _nets() -> dict[str, str]:
    """The nets of each file, and what the file says."""
    found: dict[str, list[str]] = {}
    for name, build in MODELS.items():
        module = getattr(build, "func", build).__module__
        found.setdefault(module, []).append(name)
    return {", ".join(names): _first(sys.modules[module]) for module, names in found.items()}


def _first(of: object) -> str:
    return (inspect.getdoc(of) or "").partition("\n")[0]


def _list(title: str, rows: dict[str, str]) -> str:
    width = max(len(name) for name in rows if len(name) <= 24)
    lines = [
        f"  {name:<{width}}  {text}" if len(name) <= width else f"  {name}\n  {'':<{width}}  {text}"
        for name, text in rows.items()
    ]
    return "\n".join([f"{title}:", *lines])
