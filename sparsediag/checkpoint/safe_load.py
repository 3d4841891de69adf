"""Read files that may be damaged or malicious, without ever running code from them."""

from __future__ import annotations

import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsediag.checkpoint import model_folder, pickled_objects
from sparsediag.checkpoint.mask_conventions import is_binary
from sparsediag.checkpoint.watch_file import advise_watch, is_watch_file
from sparsediag.core.errors import CheckpointError, missing_file

FORMAT = 1
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # start of a file of torch.save before 1.6


def is_own_format(path: Path, payload: Mapping[Any, Any], *needed: str) -> bool:
    """Return whether this package wrote a file: whether it names a format and the needed keys.

    Raises:
        CheckpointError: If only a newer version knows the format.
    """
    if not {"format", *needed} <= payload.keys():
        return False
    if not isinstance(payload["format"], int) or payload["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {payload['format']}, this version reads up to {FORMAT}; "
            f"install sparsediag {payload.get('made_by', {}).get('sparsediag', 'newer')} or later"
        )
    return True


def load_dict(path: Path) -> dict[Any, Any]:
    """Read the dict in a file of `torch.save`, safetensors or numpy, or in a folder of shards.

    A list of dicts becomes a dict by number, and a list of tensors of 0 and 1 one with the key
    "masks". Objects beside the tensors are not imported, see `pickled_objects`.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is anything else, or is damaged.
    """
    if path.is_dir():
        path = model_folder.weights_file(path)
    if not path.exists():
        raise FileNotFoundError(missing_file(path, "a file with the weights of a network"))
    with path.open("rb") as file:
        start = file.read(64)
    if start[:1] == b"{" and b"\0" not in start:
        if is_watch_file(path):
            raise CheckpointError(f"{path} holds no weights{advise_watch(path)}")
        return {
            n: t for shard in model_folder.shard_files(path) for n, t in load_dict(shard).items()
        }
    try:
        if start[8:9] == b"{":
            from safetensors.torch import load_file

            return dict(load_file(path))
        if start.startswith(b"PK"):
            _check_zip(path)
            if path.suffix == ".npz":
                return _load_arrays(path)
        elif not start.startswith(LEGACY):
            raise CheckpointError(
                f"{path}: not a torch checkpoint (it starts with {start[:5]!r}); give a file of "
                f"torch.save, safetensors or numpy's savez{_hint(path, start)}"
            )
        payload = pickled_objects.plain(_load_pickle(path))
    except (CheckpointError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "DefaultCPUAllocator" in str(error):  # how torch says that there is too little memory
            raise
        if zipfile.is_zipfile(path):  # and the checksums are right
            what = f"torch {torch.__version__} raised {type(error).__name__}"
            advice = "write plain tensors with torch.save and its own protocol of pickle"
            raise CheckpointError(f"{path} cannot be read; {what}; {advice}") from None
        raise CheckpointError(f"{path} is damaged or cut short; copy or write it again") from None
    if isinstance(payload, list | tuple) and any(isinstance(v, Mapping) for v in payload):
        payload = {str(i): value for i, value in enumerate(payload)}
    elif isinstance(payload, list | tuple) and _are_masks(payload):
        payload = {"masks": list(payload)}
    if not isinstance(payload, Mapping):
        raise CheckpointError(f"{path} holds a {type(payload).__name__}; need a dict of tensors")
    return dict(payload)


def _are_masks(values: Iterable[Any]) -> bool:
    tensors = [t for t in values if t is not None]
    return bool(tensors) and all(isinstance(t, Tensor) and is_binary(t) for t in tensors)


def _load_pickle(path: Path) -> Any:
    """Return the contents of a file of `torch.save`."""
    with warnings.catch_warnings():
        # sparse tensors are made dense later; nested ones are refused by name
        warnings.filterwarnings("ignore", message=".*([Ss]parse|nested|pickle protocol)")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            if not pickled_objects.global_names(path):
                raise
            return pickled_objects.load(path)


def _load_arrays(path: Path) -> dict[Any, Any]:
    """Return the arrays of numbers in a file of `numpy.savez` as tensors."""
    with np.load(path, allow_pickle=False) as arrays:
        try:
            numbers = {n: a for n in arrays.files if (a := arrays[n]).dtype.kind in "biufc"}
        except ValueError:
            raise CheckpointError(
                f"{path} holds Python objects; save arrays of numbers: numpy.savez(path, **arrays)"
            ) from None
    return {n: torch.from_numpy(a.astype(a.dtype.newbyteorder("="))) for n, a in numbers.items()}


def _hint(path: Path, start: bytes) -> str:
    """Return what to do with a file of another kind."""
    hints = {
        b"\x80": "; if it is a pickle that you trust, write it again: "
        f"torch.save(pickle.load(open('{path}', 'rb')), path)",
        b"\x93NUMPY": "; it is one array of numpy, without a name",
        b"version https://git-lfs": "; it is a pointer of Git LFS: git lfs pull",
        b"<": "; it is a web page, so the download failed",
        b"\x1f\x8b": "; it is compressed: unpack it first",
    }
    return next((hint for magic, hint in hints.items() if start.startswith(magic)), "")


def _check_zip(path: Path) -> None:
    """Raise an error if a zip file is damaged, or is no file of weights."""
    try:
        with zipfile.ZipFile(path) as file:
            broken, names = file.testzip(), file.namelist()  # torch checks no checksum
    except Exception:
        broken, names = "all", []
    advice = ""
    if broken:
        advice = "is damaged or cut short; copy or write it again"
    elif path.suffix == ".distcp":
        advice = (
            "is a part of a distributed checkpoint; "
            f"{model_folder.DISTRIBUTED} {path.parent} NEW.pt"
        )
    elif any(name.endswith("/constants.pkl") for name in names):
        advice = (
            "is a TorchScript program; save the weights in it: "
            f"torch.save(torch.jit.load('{path}').state_dict(), 'NEW.pt')"
        )
    elif any(name.endswith("archive_format") for name in names):
        advice = (
            "is a program of torch.export; save the weights in it: "
            f"torch.save(torch.export.load('{path}').state_dict, 'NEW.pt')"
        )
    elif "header.npy" in names:
        advice = "is a result; give the checkpoint it was made from"
    elif path.suffix != ".npz" and not any(name.endswith("data.pkl") for name in names):
        advice = f"is a zip archive of other files, such as {names[:1]}; unpack it, and give one"
    if advice:
        raise CheckpointError(f"{path} {advice}")


def intern_strings(value: Any) -> Any:
    """Return a value in which equal strings are one object, so that equal files have equal bytes.

    pickle writes a string again unless it is the same object.
    """
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, dict):
        return {intern_strings(key): intern_strings(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(intern_strings(v) for v in value)
    return value
