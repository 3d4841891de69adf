"""List everything that a run file can name, with one line for each."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Mapping

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
    return "\n\n".join(format_list(title, rows) for title, rows in lists.items())


def _first_line(documented: object) -> str:
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def format_list(title: str, rows: Mapping[str, str]) -> str:
    """Return names and texts under a title, in lines of 79: side by side if all names are short."""
    width = max(map(len, rows))
    lines = [f"{title}:"]
    for name, text in rows.items():
        if width <= 14:
            lines.append(_fill(text, f"  {name:<{width}}  ", " " * (width + 4)))
        else:
            lines += [_fill(name, "  ", "  "), _fill(text, " " * 6, " " * 6)]
    return "\n".join(lines)


def _fill(text: str, first: str, rest: str) -> str:
    return textwrap.fill(
        text, 79, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )
