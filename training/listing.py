"""List everything that a run file can name, with one line for each."""

from __future__ import annotations

import inspect
import sys

from sparsediag.data.datasets import DATASETS
from sparsediag.models import MODELS
from training.config import RECIPES
from training.masks import METHODS
from training.tweaks import GROUPS, TWEAKS


def catalogue() -> str:
    """Return the lists of recipes, masks, tweaks, networks and data sets."""
    recipes = {p.stem: p.read_text().partition("\n")[0][2:] for p in RECIPES.glob("*.toml")}
    data = {
        name: f"{source.classes} classes, {'grey' if len(source.moments) == 1 else 'colour'}"
        for name, source in DATASETS.items()
    }
    networks: dict[str, list[str]] = {}  # by module
    for name, build in MODELS.items():
        networks.setdefault(getattr(build, "func", build).__module__, []).append(name)
    lists = {
        "Recipes": dict(sorted(recipes.items())),
        "Masks (mask.method)": {n: _first_line(kind) for n, kind in METHODS.items()},
        "Tweaks (tweaks)": {n: _first_line(kind) for n, kind in TWEAKS.items()},
        "Groups of tweaks": {name: ", ".join(parts) for name, parts in GROUPS.items()},
        "Networks (model.name)": {
            ", ".join(names): _first_line(sys.modules[module]) for module, names in networks.items()
        },
        "Data (data)": data | {"folder:PATH": "class folders of images"},
    }
    return "\n\n".join(_list(title, rows) for title, rows in lists.items())


def _first_line(documented: object) -> str:
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def _list(title: str, rows: dict[str, str]) -> str:
    width = max(len(name) for name in rows if len(name) <= 24)
    lines = [
        f"  {name:<{width}}  {text}" if len(name) <= width else f"  {name}\n  {'':<{width}}  {text}"
        for name, text in rows.items()
    ]
    return "\n".join([f"{title}:", *lines])
