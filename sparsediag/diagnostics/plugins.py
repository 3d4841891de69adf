"""Plug-ins: Python files and installed packages that add to this one, without a change in it.

A plug-in is a file that a command names with `--plugin`, or the module of an installed package that
its entry point in the group `sparsediag.plugins` names. It is imported, which runs it. What it
defines is added by its kind: a function under `@diagnostic` is a command; `training` takes masks
and tweaks, and `figures` takes figures. A checkpoint never loads a plug-in.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Container, Iterable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from sparsediag.checkpoint.user_code import import_file, user_code
from sparsediag.core import fingerprint
from sparsediag.diagnostics import ADDED, DIAGNOSTICS, load_diagnostic
from sparsediag.diagnostics.result import Result

GROUP = "sparsediag.plugins"
FILES: dict[str, ModuleType] = {}  # absolute path -> its module
PACKAGES: dict[str, ModuleType | None] = {}  # entry point -> its module; None if it failed


def load_plugins(files: Iterable[str] = (), *, commands: Container[str] = ()) -> list[ModuleType]:
    """Import plug-ins, and add the diagnostics in them.

    Args:
        files: Python files; those of earlier calls stay. Installed packages are always loaded; one
            that raises an error is left out, with a line on stderr.
        commands: Names of commands, which a diagnostic must not have.

    Returns:
        The modules of all plug-ins.

    Raises:
        ValueError: If a file is missing or raises an error, or a name in it is taken.
    """
    for entry in entry_points(group=GROUP):
        if entry.value not in PACKAGES:
            fingerprint.PLUGIN_PACKAGES.add(entry.module.partition(".")[0])
            try:
                where = f"plug-in {entry.value} of {entry.dist and entry.dist.name}"
                with user_code(where, installed=True):
                    PACKAGES[entry.value] = import_module(entry.module)
            except ValueError as error:
                PACKAGES[entry.value] = None
                print(error, file=sys.stderr)
    for file in files:
        if not file.endswith(".py") or not Path(file).is_file():
            raise ValueError(f"--plugin {file}: no such file; need a Python file, FILE.py")
        path = str(Path(file).resolve())
        FILES[path] = import_file(path)
        if (folder := str(Path(path).parent)) not in sys.path:
            sys.path.append(folder)  # for imports inside its functions
    modules = [module for module in (*PACKAGES.values(), *FILES.values()) if module]
    for module in modules:
        _add_diagnostics(module, commands)
    return modules


def check_diagnostics(file: str) -> None:
    """Raise ValueError if a file that was loaded has no diagnostic."""
    module = FILES[str(Path(file).resolve())]
    if not any(hasattr(thing, "traits") for thing in definitions(module)):
        raise ValueError(
            f"{file} has no diagnostic; write @diagnostic() above its function, with "
            "`from sparsediag.diagnostics.traits import diagnostic`"
        )


def definitions(module: ModuleType) -> Iterator[Any]:
    """Yield the public classes and functions of a plug-in that are not of this package."""
    for name, thing in vars(module).items():
        if isinstance(thing, type | FunctionType) and not name.startswith("_"):
            ours = thing.__module__.partition(".")[0] in fingerprint.OURS
            if not ours and not inspect.isabstract(thing):
                yield thing


def check_free(kind: str, name: str, thing: Any, known: Any) -> None:
    """Raise ValueError if something in a plug-in has the name of another thing."""
    if known is not None and known.__module__ != thing.__module__:
        raise ValueError(
            f"{file_of(thing)}: there is {kind} '{name}' already, in {file_of(known)}; give yours "
            "another name"
        )


def file_of(thing: Any) -> str:
    """Return the file that a class or function is defined in."""
    return str(getattr(sys.modules.get(thing.__module__), "__file__", thing.__module__))


def _add_diagnostics(module: ModuleType, commands: Container[str]) -> None:
    """Add the functions under `@diagnostic`; their results must not have the name of ours."""
    for thing in definitions(module):
        name = thing.__name__
        if hasattr(thing, "traits"):
            known = load_diagnostic(name) if name in DIAGNOSTICS else None
            check_free("diagnostic", name, thing, known)
            if name in commands:
                raise ValueError(f"{file_of(thing)}: '{name}' is a command; rename the function")
            ADDED[name] = thing
            first_line = (inspect.getdoc(thing) or "").partition("\n")[0].rstrip(".")
            DIAGNOSTICS[name] = first_line or f"of {file_of(thing)}"
        elif isinstance(thing, type) and issubclass(thing, Result) and _is_ours(name):
            raise ValueError(f"{file_of(thing)}: there is a result '{name}'; rename the class")


def _is_ours(result: str) -> bool:
    """Return whether the files of a result of this name would be read as those of another one."""
    return find_spec(f"sparsediag.diagnostics.{result.lower()}") is not None
