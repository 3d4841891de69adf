"""Fingerprints that show whether two results have the same network, data, loss and code."""

from __future__ import annotations

import builtins
import dis
import enum
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache, cached_property, lru_cache, partial
from importlib.util import find_spec
from inspect import unwrap
from pathlib import Path, PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SIMPLE = (int, float, str)
PLAIN = (*SIMPLE, complex, bytes, range, slice, type(None), type(...), enum.Enum, PurePath)
PLAIN_ARRAYS = (np.generic, torch.dtype, torch.device)
OURS, ROOT = {"sparsediag", "training", "figures"}, Path(__file__).parents[2]
PLUGIN_PACKAGES: set[str] = set()  # installed packages whose code counts as the user's
File = tuple[str, int, int, int]  # path below a folder, and its `file_state`
_first_seen: dict[int, tuple[Any, list[Any]]] = {}  # holds containers, so that no id is used again


def fingerprint(about: str, tensors: Iterable[Tensor]) -> str:
    """Return the hex digest of a text and the bytes of tensors."""
    sha = hashlib.sha256(about.encode())
    for t in tensors:
        sha.update(t.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def file_state(path: str | Path) -> tuple[int, int, int]:
    """Return size, time of modification and time of change: another content has another state."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@lru_cache(maxsize=16)
def fingerprint_files(root: Path, files: tuple[File, ...]) -> str:
    """Return the hex digest of the names and bytes of files below a folder."""
    sha = hashlib.sha256()
    for path, *_ in files:
        sha.update(path.encode() + b"\0" + hashlib.sha256((root / path).read_bytes()).digest())
    return sha.hexdigest()


def describe_modules(net: nn.Module) -> str:
    """Return the code and plain options of a network's modules as text.

    >>> describe_modules(nn.Linear(2, 1))  # torch's own modules are described by their repr
    '[]'
    """
    custom = [m for m in net.modules() if not type(m).__module__.startswith("torch.")]
    options = [
        sorted((k, v) for k, v in vars(m).items() if k != "training" and isinstance(v, SIMPLE))
        for m in custom
    ]
    kinds = {type(m).__qualname__: type(m) for m in custom}
    codes = {
        name: describe_code(kind if is_custom(kind) else kind.forward.__code__)
        for name, kind in kinds.items()
    }
    scripts = [m.code for m in net.modules() if hasattr(m, "original_name") and hasattr(m, "code")]
    return str([codes, options, *scripts]) if custom or scripts else "[]"


def is_custom(thing: type | FunctionType | ModuleType) -> bool:
    """Return whether code is the user's: not of this package, of Python or of an installed one.

    An installed package that is a plug-in (`PLUGIN_PACKAGES`) is the user's too.

    >>> is_custom(nn.Linear), is_custom(fingerprint)
    (False, False)
    """
    if isinstance(thing, FunctionType):
        module = thing.__globals__.get("__name__")
    else:
        module = thing.__module__ if isinstance(thing, type) else thing.__name__
    if module in (None, "builtins"):  # of a text that was executed
        return vars(builtins).get(thing.__name__) is not thing
    return _is_users(module, getattr(sys.modules.get(module), "__file__", None) or "")


def _is_users(module: str, file: str) -> bool:
    """Return whether a module, given by its name and file, is the user's."""
    top, path = module.partition(".")[0], Path(file)
    if top in PLUGIN_PACKAGES:
        return True
    ours = top in OURS and path.is_relative_to(ROOT / top)
    installed = {"site-packages", "dist-packages"} & {*path.parts}
    return not (ours or installed or top in sys.stdlib_module_names)


def describe_code(thing: Any) -> str:
    """Return the code and options of a function, class or module as text.

    It is the same in every process, for one version of Python. Code of the user is followed to its
    base classes, and to the functions and constants that it names, in other files too. A module of
    the user that a function itself imports is described by the bytes of its files. Variables that
    the code assigns itself are left out; lists and dicts are described as they were when they were
    first seen.

    >>> plain, smooth = nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)
    >>> describe_code(plain) == describe_code(smooth)
    False
    """
    return _describe(thing, {})


def _describe(thing: Any, seen: dict[int, Any]) -> str:
    """Describe a thing and, once each, all that it refers to."""
    if isinstance(thing, (*PLAIN, *PLAIN_ARRAYS)):
        return repr(thing)
    if isinstance(thing, Tensor):
        tensors = thing.unbind() if thing.is_nested else [thing]
        values = [t.to_dense() for t in tensors if not t.is_meta]
        return fingerprint(str([tuple(t.shape) for t in tensors]), values)
    if isinstance(thing, np.ndarray):
        return fingerprint(f"{thing.dtype} {thing.shape} {thing.tobytes().hex()}", [])
    name = (thing if isinstance(thing, type | FunctionType) else type(thing)).__qualname__
    if id(thing) in seen and not isinstance(thing, tuple):
        return name
    outermost, seen[id(thing)] = not seen, thing
    parts = [_describe(part, seen) for part in _parts(thing, outermost)]
    if isinstance(thing, set | frozenset):
        parts.sort()
    return f"{name}({', '.join(parts)})"  # quotes within quotes would double at every level


def _parts(thing: Any, outermost: bool) -> Iterator[Any]:
    """Yield what a thing consists of and refers to; only the outermost one may be a library's."""
    values = vars(thing) if type(thing).__dictoffset__ else {}
    if isinstance(thing, CodeType):
        yield from (thing.co_code, thing.co_names, thing.co_consts)
    elif isinstance(thing, tuple | frozenset):
        yield from thing
    elif isinstance(thing, list | set | dict):
        items = thing.items() if isinstance(thing, dict) else thing
        if not _is_registry(thing):
            yield from _first_seen.setdefault(id(thing), (thing, [*items]))[1]
    elif isinstance(thing, ModuleType):
        yield thing.__name__ if not is_custom(thing) else ""
    elif isinstance(thing, partial):
        yield from (thing.func, thing.args, *sorted(thing.keywords.items()))
    elif isinstance(thing, MethodType | staticmethod | classmethod):
        yield from (thing.__func__, getattr(thing, "__self__", None))
    elif isinstance(thing, property | cached_property):
        yield from (getattr(thing, "fget", None), getattr(thing, "func", None))
    elif isinstance(thing, FunctionType):
        library = "" if is_custom(thing) else thing.__globals__.get("__name__")
        yield from (library, values.get("__wrapped__"))
        if outermost or is_custom(thing):
            yield from (thing.__code__, thing.__defaults__, thing.__kwdefaults__)
        if is_custom(thing):
            yield from _outer_variables(thing)
    elif isinstance(thing, type):
        if is_custom(thing):
            yield from (*thing.__bases__, *_class_variables(thing))
        else:
            yield thing.__module__
    elif isinstance(thing, nn.Module):
        yield from (str(thing), *dict.fromkeys(map(type, thing.modules())))
        yield fingerprint("", thing.state_dict().values())
        yield from sorted((k, v) for k, v in values.items() if isinstance(v, PLAIN))
    elif is_custom(kind := type(thing)):
        slots = {name for base in kind.__mro__ for name in vars(base).get("__slots__", ())}
        yield from (kind, *values.items(), *((n, getattr(thing, n, None)) for n in sorted(slots)))
    else:  # of a library; one of its functions may hold the user's
        yield from (getattr(thing, "__name__", ""), values.get("__wrapped__"))


def _is_registry(container: Any) -> bool:
    """Return whether a list or dict is one of this package, to which users add what they like."""
    ours = [m for name, m in sys.modules.copy().items() if name.partition(".")[0] in OURS]
    return any(container is value for module in ours for value in vars(module).values())


def _outer_variables(function: FunctionType) -> Iterator[Any]:
    """Yield what a function reads from outside: names and values."""
    code, outside = function.__code__, dict[str, Any]()
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not assigned yet
            outside[name] = cell.cell_contents
    known, attributes = function.__globals__, sorted(_names(code))
    outside |= {n: known[n] for n in sorted(_names(code, "LOAD_GLOBAL")) if n in known}
    for name, value in _options(outside, _names(code, "STORE_GLOBAL", "STORE_DEREF")):
        yield name, value, *_members(value, attributes, ())
    for name in sorted({name.partition(".")[0] for name in _names(code, "IMPORT_NAME")}):
        with suppress(ImportError, ValueError):  # relative, or not there: the call will say so
            spec = find_spec(name)
            if spec and spec.has_location and _is_users(name, str(spec.origin)):
                folders = spec.submodule_search_locations or ()
                files = [f for folder in folders for f in Path(folder).rglob("*.py")]
                yield name, *(f.read_bytes() for f in sorted(files or [Path(str(spec.origin))]))


def _members(value: Any, attributes: list[str], outer: tuple[Any, ...]) -> Iterator[Any]:
    """Yield what code may read from a module of the user by these names, and from modules in it."""
    if isinstance(value, ModuleType) and is_custom(value) and value not in outer:
        inside = vars(value)
        for name in (name for name in attributes if name in inside):
            yield name, inside[name], *_members(inside[name], attributes, (*outer, value))


def _class_variables(kind: type) -> Iterator[Any]:
    """Yield methods and constants of a class: names and values."""
    bodies = [getattr(v, "fget", getattr(v, "__func__", v)) for v in vars(kind).values()]
    methods = [
        unwrap(m) for m in bodies if isinstance(m, FunctionType) and m.__name__ != "__init__"
    ]
    assigned = frozenset[str]().union(*(_names(m.__code__, "STORE_ATTR") for m in methods))
    for name, value in _options(dict(sorted(vars(kind).items())), assigned):
        code = isinstance(value, FunctionType | staticmethod | classmethod | property)
        if code or not name.startswith(("__", "_abc_")):
            yield name, value


def _options(values: dict[str, Any], assigned: frozenset[str]) -> list[tuple[str, Any]]:
    """Return the values without counters and the like, which the code assigns itself."""
    return [(k, v) for k, v in values.items() if not (k in assigned and isinstance(v, PLAIN))]


@cache
def _names(code: CodeType, *operations: str) -> frozenset[str]:
    """Return the names of globals and attributes in code, or those that some operations have."""
    steps = dis.get_instructions(code) if operations else ()
    names = [step.argval for step in steps if step.opname in operations]
    inner = [_names(c, *operations) for c in code.co_consts if isinstance(c, CodeType)]
    return frozenset(names if operations else code.co_names).union(*inner)
