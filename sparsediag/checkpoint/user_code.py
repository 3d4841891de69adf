"""Import code of the user that a command line names, such as `file.py:make`.

It is imported, which runs it, as `python file.py` does. What it prints goes to stderr, and what it
raises becomes one line.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from sparsediag.core.errors import unknown

OWN = "file.py:make or package.module:Net"


def import_object(words: str) -> Any:
    """Import the object that `file.py:name` or `package.module:name` names."""
    where, _, name = words.rpartition(":")
    if where.endswith(".py") and not Path(where).is_file():
        raise ValueError(f"{where}: no such file; need {OWN}")
    if not where or not name:
        raise ValueError(f"'{words}' names nothing; need {OWN}")
    with user_code(words):
        if where.endswith(".py"):
            path = Path(where).resolve()
            module = _module(path, path.stat().st_mtime_ns)
        else:
            module = importlib.import_module(where)
    if not hasattr(module, name):
        raise ValueError(unknown(f"name in {where}:", name, _made_in(module)))
    return getattr(module, name)


@contextmanager
def user_code(words: str) -> Iterator[None]:
    """Code of the user's, with its folder importable and random numbers of its own."""
    where = words.rpartition(":")[0]
    folder = str(Path(where).resolve().parent if where.endswith(".py") else Path.cwd())
    sys.path.insert(0, folder)
    try:
        with redirect_stdout(sys.stderr), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{words} raised {what}; --debug shows where") from error
    finally:
        with suppress(ValueError):
            sys.path.remove(folder)


def accepted_kwargs(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some keywords that a function takes."""
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return dict(offered)
    named = {n for n, p in known.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return {key: value for key, value in offered.items() if key in named}


def required_kwargs(function: Callable[..., Any], offered: Iterable[str]) -> list[str]:
    """Those of some keywords that a function cannot do without.

    >>> required_kwargs(lambda batch, images=20: None, ["images", "batch"])
    ['batch']
    """
    named = accepted_kwargs(function, dict.fromkeys(offered))
    known = inspect.signature(function).parameters if named else {}
    return [key for key in named if key in known and known[key].default is inspect.Parameter.empty]


@lru_cache
def _module(path: Path, changed: int) -> ModuleType:
    """The module in a file, imported once for all words, and again when the file has changed."""
    spec = importlib.util.spec_from_file_location(str(path), path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = sys.modules[str(path)] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[str(path)]
        raise
    return module


def _made_in(module: ModuleType) -> list[str]:
    """Names that a module does not have from others."""
    own = module.__name__
    named = {n: v for n, v in vars(module).items() if not isinstance(v, ModuleType)}
    return [
        n
        for n, v in named.items()
        if not n.startswith("_") and getattr(v, "__module__", own) == own
    ]
