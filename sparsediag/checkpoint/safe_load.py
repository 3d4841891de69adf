"""Read files that may be damaged or malicious, without ever running code from them."""

from __future__ import annotations

import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sparsediag.core.errors import CheckpointError

FORMAT = 1
OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save wrote before 1.6 starts with


def ours(path: Path, payload: Mapping[Any, Any], *needed: str) -> bool:
    """Return whether the contents of a file are complete and of a format of this package.

    Raises:
        CheckpointError: If the format is one that only a newer version knows.
    """
    if not {"format", *needed} <= payload.keys():
        return False
    if not isinstance(payload["format"], int) or payload["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {payload['format']}, this version reads up to {FORMAT}; "
            f"install sparsediag {payload.get('made_by', {}).get('sparsediag', 'newer')} or later"
        )
    return True


def contents(path: Path) -> dict[Any, Any]:
    """The dict in a file of `torch.save` or of safetensors, whoever wrote it.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is anything else, or is damaged.
    """
    payload = _read(path)
    if not isinstance(payload, Mapping):
        raise CheckpointError(f"{path} holds a {type(payload).__name__}; need a dict of tensors")
    return dict(payload)


def _read(path: Path) -> Any:
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give a file in it, such as {path / 'best.pt'}")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give one that `python -m training` wrote")
    with path.open("rb") as file:
        start = file.read(len(OLD))
    try:
        if start[8:9] == b"{":
            from safetensors.torch import load_file

            return load_file(path)
        if start.startswith(b"PK"):
            _checked(path)
        elif start != OLD:
            raise CheckpointError(
                f"{path}: not a torch checkpoint (it starts with {start[:5]!r}); "
                "give a file that `python -m training` wrote, torch.save or safetensors"
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Ss]parse")  # they will be made dense
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise CheckpointError(
            f"{path} holds pickled Python objects, and reading them would run code"
            f"{f' ({what[1]})' if what else ''}; save plain tensors instead: "
            "torch.save(net.state_dict(), path), or Checkpoint.of(net, model=...).save(path)"
        ) from None
    except CheckpointError:
        raise
    except Exception:
        raise CheckpointError(f"{path} is damaged or cut short; copy or write it again") from None


def _checked(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        if file.testzip():  # torch compares no checksum
            raise ValueError("a checksum does not fit")
        if any(name.endswith("/constants.pkl") for name in file.namelist()):
            raise CheckpointError(
                f"{path} is a TorchScript program; save the weights of the net that it was made "
                "from: torch.save(net.state_dict(), path)"
            )
        if "header.npy" in file.namelist():
            raise CheckpointError(f"{path} is a result; give the checkpoint it was made from")


def interned(value: Any) -> Any:
    """The value with one object for all words that are equal, so that equal files are the same."""
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, dict):
        return {interned(key): interned(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(interned(v) for v in value)
    return value
