"""Train sparse neural networks well, and see what happens inside them.

>>> import sparsediag as sd
>>> net = sd.models.build("lenet300", size=8)
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

from sparsediag.core.version import __version__ as __version__

# name -> the module that it is in, and its name there; read from the stub, the one list of names
_IMPORTS: dict[str, tuple[str, str]] = {}
for _node in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body:
    if isinstance(_node, ast.ImportFrom):
        for _alias in _node.names:
            _IMPORTS[_alias.asname or _alias.name] = (str(_node.module), _alias.name)
    elif isinstance(_node, ast.Assign):
        _IMPORTS[ast.unparse(_node.targets[0])] = _IMPORTS[ast.unparse(_node.value)]

__all__ = sorted(name for name in _IMPORTS if not name.startswith("_"))


def __getattr__(name: str) -> Any:
    """Import a name on first use, so that `sparsediag --help` does not wait for torch (PEP 562)."""
    from sparsediag.diagnostics import ADDED, DIAGNOSTICS

    if name in _IMPORTS:
        where, original = _IMPORTS[name]
    elif name in ADDED:
        return ADDED[name]
    elif name in DIAGNOSTICS or (name.capitalize() == name and name.lower() in DIAGNOSTICS):
        where, original = f"sparsediag.diagnostics.{name.lower()}", name
    else:
        raise AttributeError(f"module 'sparsediag' has no attribute '{name}'")
    module = importlib.import_module(where)
    if hasattr(module, "__path__"):  # a room, whose names are modules
        return importlib.import_module(f"{where}.{original}")
    return getattr(module, original)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
