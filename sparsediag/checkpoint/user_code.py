"""Import code of the user that a command line names, such as `file.py:make`.

It is imported, which runs it, as `python file.py` does. Its prints go to stderr, and its errors
become one line.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from sparsediag.core.errors import missing_file, unknown_name

SYNTAX = "file.py:make or package.module:Net"


def import_object(spec: str) -> object:
    """Import the object that `file.py:name` or `package.module:name` names."""
    where, _, name = spec.rpartition(":")
    if where.endswith(".py") and not Path(where).is_file():
        raise ValueError(missing_file(Path(where), SYNTAX))
    if not where or not name:
        raise ValueError(f"'{spec}' names nothing; need {SYNTAX}")
    if where.endswith(".py"):
        module = import_file(where, spec)
    else:
        with user_code(spec):
            module = importlib.import_module(where)
    if not hasattr(module, name):
        raise ValueError(unknown_name(f"name in {where}:", name, _defined_names(module)))
    obj: object = getattr(module, name)
    return obj


def import_file(file: str, spec: str = "") -> ModuleType:
    """Import a Python file, once until it is modified.

    Raises:
        ValueError: If it raises an error; the message names `spec`, or the file.
    """
    path = Path(file).resolve()
    with user_code(spec or file):
        return _import_file(path, path.stat().st_mtime_ns)


@contextmanager
def user_code(spec: str, *, installed: bool = False) -> Iterator[None]:
    """Run code of the user: its folder is importable, and the global random state is kept.

    Args:
        spec: The code, for messages; its folder is that of the file, or the current one.
        installed: Whether it is an installed package, which needs no folder.
    """
    where = spec.rpartition(":")[0] or spec
    folder = str(Path(where).resolve().parent if where.endswith(".py") else Path.cwd())
    if not installed:
        sys.path.insert(0, folder)
    try:
        with redirect_stdout(sys.stderr), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(f"{spec} raised {one_line(error)}; --debug shows where") from error
    finally:
        if not installed:
            with suppress(ValueError):
                sys.path.remove(folder)


def one_line(error: BaseException) -> str:
    """Return the type and the message of an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def accepted_kwargs(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the offered keyword arguments that a function takes."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(offered)
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {k: v for k, v in offered.items() if k in parameters and parameters[k].kind in by_name}


def required_kwargs(function: Callable[..., Any], offered: Iterable[str]) -> list[str]:
    """Return those of the offered keywords that a function needs.

    >>> required_kwargs(lambda batch, images=20: None, ["images", "batch"])
    ['batch']
    """
    accepted = accepted_kwargs(function, dict.fromkeys(offered))
    known = inspect.signature(function).parameters if accepted else {}
    return [k for k in accepted if k in known and known[k].default is inspect.Parameter.empty]


@lru_cache
def _import_file(path: Path, modified: int) -> ModuleType:
    """Import a file, once for all names in it, and again when it has been modified."""
    name = str(path).replace(".", "\N{ONE DOT LEADER}")  # pickle would import what is before a dot
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path)
    try:
        exec(compile(path.read_bytes(), path, "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _defined_names(module: ModuleType) -> list[str]:
    """Return the public names that a module defines itself."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", module.__name__) == module.__name__
    ]
