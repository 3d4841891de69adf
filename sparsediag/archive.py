"""Archives: reading a file that somebody may have damaged, or made to run code. It never does."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from sparsediag.errors import CheckpointError

FORMAT = 1


def read(path: Path) -> dict[str, Any]:
    """The dict in a file that `torch.save` wrote, if it is a checkpoint of ours.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is anything else, is damaged, or is of a newer format.
    """
    payload = contents(path)
    if not isinstance(payload, dict) or "format" not in payload or "dense" not in payload:
        raise CheckpointError(
            f"{path} holds no description of its net; load it in Python and save it with "
            "Checkpoint.of(net, model=...).save(path)"
        )
    known(path, payload)
    return payload


def known(path: Path, payload: dict[str, Any]) -> None:
    """Raise CheckpointError if the file is of a format that only a newer version knows."""
    if not isinstance(payload["format"], int) or payload["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {payload['format']}, this version reads up to {FORMAT}; "
            f"install sparsediag {payload.get('made_by', {}).get('sparsediag', 'newer')} or later"
        )


def contents(path: Path) -> Any:
    """What `torch.save` wrote to a file: tensors and plain types, from whoever it is.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is anything else, or is damaged.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give a file in it, such as {path / 'best.pt'}")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give one that `python -m training` wrote")
    with path.open("rb") as file:
        start = file.read(5)
    if not start.startswith(b"PK"):
        raise CheckpointError(
            f"{path}: not a torch checkpoint (it starts with {start!r}); "
            "give a file that `python -m training` wrote"
        )
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip():  # torch compares no checksum
                raise ValueError("a checksum does not fit")
            if "header.npy" in file.namelist():
                raise CheckpointError(f"{path} is a result; give the checkpoint it was made from")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} holds pickled Python objects, and reading them would run code; "
            "save plain tensors instead: Checkpoint.of(net, model=...).save(path)"
        ) from None
    except CheckpointError:
        raise
    except Exception:
        raise CheckpointError(f"{path} is damaged or cut short; copy or write it again") from None
