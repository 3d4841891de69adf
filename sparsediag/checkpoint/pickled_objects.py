"""Read what is beside the tensors in a pickle, without importing or calling what the pickle names.

torch reads a pickle only if it knows every class and function in it. Here, inert stand-ins take the
place of the unknown ones: they keep the arguments and attributes of an object, and do nothing. What
is plain is taken out of them: numpy arrays and numbers, the attributes of a configuration, the
weights in a pickled module.
"""

from __future__ import annotations

import builtins
import pickle
import pickletools
import re
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsediag.core.errors import CheckpointError

# modules of the standard library whose objects are values; a pickle that names others runs code
VALUES = ["argparse", "collections", "datetime", "decimal", "enum", "fractions", "pathlib", "types"]
VALUES += ["typing", "uuid"]
OTHERS = ("_codecs.encode", "functools.partial", "_operator.getitem")
IS_RECORD = "is a record"
NUMBERS = re.compile(r"[biufc]\d+|[SU]\d+")  # dtypes of numpy that hold numbers or text


class Inert:
    """Take the place of an object, and keep its attributes."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                vars(self).update(part)


class Record:
    """Take the place of an object that may be a dict; an instance is an OrderedDict."""

    def __new__(cls, *_: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        """Return a dict, since torch adds items to nothing else."""
        record: OrderedDict[Any, Any] = OrderedDict()
        vars(record)[IS_RECORD] = True
        return record


class Subclass(Tensor):
    """Take the place of a class of tensors that hold others, such as DTensor."""

    @classmethod
    def __torch_dispatch__(cls, function: Any, *_: Any) -> Any:
        """Refuse to compute."""
        raise CheckpointError(f"{function} of a tensor that is not plain")


class DType(Inert):
    """Take the place of a dtype of numpy."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name, self.is_swapped = str(name), False

    def __setstate__(self, state: Any) -> None:
        self.is_swapped = state[1] == (">" if sys.byteorder == "little" else "<")

    def read(self, data: Any) -> np.ndarray | None:
        """Return an array of these bytes; None for objects."""
        if not NUMBERS.fullmatch(self.name):
            return None
        data = data.encode("latin-1") if isinstance(data, str) else data
        array = np.frombuffer(data, np.dtype(self.name))
        return array.byteswap() if self.is_swapped else array.copy()


class Array(Inert):
    """Take the place of an array of numpy."""

    value: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        if (array := dtype.read(data)) is not None:
            array = array.reshape(shape, order="F" if is_fortran else "C")
            self.value = torch.from_numpy(array) if array.dtype.kind in "biufc" else array.tolist()


def _number(dtype: DType, data: Any) -> Any:
    array = dtype.read(data)
    return None if array is None else array.item()


STAND_INS: dict[str, Any] = {
    "builtins.bytes": lambda *_: b"",  # bytes that are not empty are no object
    "functools.partial": Inert,
    "collections.defaultdict": Record,
    "collections.deque": lambda *_: [],
    "numpy.dtype": DType,
    "torch.distributed.tensor.DTensor": Subclass,
    "torch.nested._internal.nested_tensor.NestedTensor": Tensor,
    "torch.nested._internal.nested_tensor._rebuild_njt": lambda *_: torch.nested.nested_tensor([]),
    "torch._utils._rebuild_nested_tensor": lambda *_: torch.nested.nested_tensor([]),
    **{
        f"numpy.{core}.multiarray.{name}": stand_in
        for core in ("core", "_core")
        for name, stand_in in {"_reconstruct": Array, "scalar": _number}.items()
    },
}


def load(path: Path) -> Any:
    """Return the contents of a file of `torch.save`, with stand-ins for unknown objects.

    Args:
        path: The file, zip or of the old format.

    Raises:
        CheckpointError: If it names what only runs code, such as a function of `os`, or cannot
            be read with stand-ins.
    """
    allowed = torch.serialization.get_safe_globals()
    names = global_names(path) - {f[1] if isinstance(f, tuple) else _name(f) for f in allowed}
    harmful = sorted(filter(_runs_code, names))
    for other in () if harmful else (Record, Inert):  # some are dicts, others keys of dicts
        stand_ins = [(STAND_INS.get(n, Inert if "numpy." in n else other), n) for n in names]
        with suppress(pickle.UnpicklingError, TypeError, ValueError, AttributeError):
            return _load(path, stand_ins)
    ours = ("collections.", "torch.", "_codecs.")
    named = [*harmful, *sorted(n for n in names if not n.startswith(ours)), *names]
    raise CheckpointError(
        f"{path} holds pickled Python objects, and reading them would run code ({named[0]}); if "
        f"you trust it, net = torch.load('{path}', weights_only=False) does it; keep the tensors: "
        "torch.save(net.state_dict(), path), or Checkpoint.of(net, model=...).save(path)"
    )


def _load(path: Path, allowed: list[Any]) -> Any:
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _runs_code(name: str) -> bool:
    """Return whether a name is one of the standard library, and not of a plain value."""
    module, _, last = name.rpartition(".")
    room = module.partition(".")[0]
    is_value = room in VALUES or name in OTHERS
    is_type = room == "builtins" and isinstance(getattr(builtins, last, None), type)
    return room in sys.stdlib_module_names and not (is_value or is_type)


def global_names(path: Path) -> set[str]:
    """Return the names of the classes and functions in a file of `torch.save`; nothing is run."""
    names = set()
    with ExitStack() as stack:
        if zipfile.is_zipfile(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            data = next(n for n in archive.namelist() if n.endswith("data.pkl"))
            file, count = stack.enter_context(archive.open(data)), 1
        else:
            file, count = stack.enter_context(path.open("rb")), 4  # magic, version, system, object
        for _ in range(count):
            for opcode, name, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    module, _, last = str(name).partition(" ")
                    now = IMPORT_MAPPING.get(module, module), last  # pickles have names of Python 2
                    names.add(".".join(NAME_MAPPING.get((module, last), now)))
    return names


def plain(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """Return a value of dicts, lists and tensors in the place of stand-ins.

    Args:
        value: What `load` or `torch.load` returned.
        seen: Values that were converted before, by id.

    Raises:
        CheckpointError: If it holds one of several shards of a tensor.
    """
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, Array):
        return value.value
    if isinstance(value, Tensor):
        return _local(value) if hasattr(value, "_local_tensor") else value
    attributes = vars(value) if isinstance(value, Inert | OrderedDict) else {}
    is_object = isinstance(value, Inert) or IS_RECORD in attributes
    if is_object and "_parameters" in attributes:
        return dict(_module_state(value))
    if type(value) in (list, tuple):
        return type(value)([plain(v, seen) for v in value])
    if is_object or type(value) in (dict, OrderedDict):
        made: dict[Any, Any] = {} if is_object else type(value)()
        seen[id(value)] = made
        items = dict(value) if isinstance(value, Mapping) else {}
        items |= {k: v for k, v in attributes.items() if is_object and k != IS_RECORD}
        for key, inner in items.items():
            made[key] = plain(inner, seen)
        return made
    return value


def _local(tensor: Any) -> Tensor:
    """Return the part of a DTensor that is in this file, if it is all of it."""
    local: Tensor = tensor._local_tensor
    if local.shape != tensor.shape:
        raise CheckpointError(
            f"a shard of {tuple(local.shape)} of a DTensor of {tuple(tensor.shape)} is in it, the "
            "rest is in the files of other processes; give a file that was saved after "
            "get_model_state_dict(net, options=StateDictOptions(full_state_dict=True))"
        )
    return local.detach()


def _module_state(module: Any, prefix: str = "") -> list[tuple[str, Tensor]]:
    """Return the state dict of a pickled module."""
    attributes = vars(module)
    hidden = attributes.get("_non_persistent_buffers_set", ())
    tensors = [*attributes["_parameters"].items(), *attributes["_buffers"].items()]
    state = [
        (prefix + n, plain(t))
        for n, t in tensors
        if t is not None and (n not in hidden or n in attributes["_parameters"])
    ]
    for name, child in attributes["_modules"].items():
        if "_parameters" in getattr(child, "__dict__", ()):
            state += _module_state(child, f"{prefix}{name}.")
    return state
