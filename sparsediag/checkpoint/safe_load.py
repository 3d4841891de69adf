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
    """Read the dict in a file of `torch.save` or of safetensors.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is anything else, or is damaged.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give a file in it, such as {path / 'best.pt'}")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give one that `python -m training` wrote")
    with path.open("rb") as file:
        start = file.read(len(LEGACY))
    try:
        if start[8:9] == b"{":
            from safetensors.torch import load_file

            return dict(load_file(path))
        if start.startswith(b"PK"):
            _check_zip(path)
        elif start != LEGACY:
            raise CheckpointError(
                f"{path}: not a torch checkpoint (it starts with {start[:5]!r}); "
                "give a file that `python -m training` wrote, torch.save or safetensors"
            )
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".*[Ss]parse"
            )  # sparse tensors are made dense later
            payload = torch.load(path, map_location="cpu", weights_only=True)
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
    if not isinstance(payload, Mapping):
        raise CheckpointError(f"{path} holds a {type(payload).__name__}; need a dict of tensors")
    return dict(payload)


def _check_zip(path: Path) -> None:
    """Raise an error if a zip file is damaged, or is no file of weights."""
    with zipfile.ZipFile(path) as file:
        if file.testzip():  # torch checks no checksum
            raise ValueError("a checksum does not fit")
        if any(name.endswith("/constants.pkl") for name in file.namelist()):
            raise CheckpointError(
                f"{path} is a TorchScript program; save the weights of the net that it was made "
                "from: torch.save(net.state_dict(), path)"
            )
        if "header.npy" in file.namelist():
            raise CheckpointError(f"{path} is a result; give the checkpoint it was made from")


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
