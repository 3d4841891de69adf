"""Masks in files of their own, and the masks that other tools leave in their files."""

from __future__ import annotations

from pathlib import Path

import torch

from sparsediag.checkpoint import mask_conventions, safe_load, state_dicts
from sparsediag.core.atomic import atomic_write
from sparsediag.core.errors import CheckpointError
from sparsediag.core.mask import Mask


def save(mask: Mask, path: str | Path) -> None:
    """Write a mask to a file of its own, whole or not at all.

    Args:
        mask: What is alive; `load` gives it back.
        path: The file, replaced if it is there.

    Raises:
        OSError: If it cannot be written.
    """
    with atomic_write(path) as draft, draft.open("wb") as file:
        torch.save({"format": safe_load.FORMAT, "mask": mask.pack()}, file)


def load(path: str | Path, *, zeros: bool = False) -> Mask:
    """The mask in a file, whoever wrote it. Nothing in the file is ever run.

    It may be a file that `save` wrote, a checkpoint of ours or of others with a mask in it (see
    `Checkpoint.load`), or a dict of name -> tensor of booleans or of 0 and 1.

    Args:
        path: The file.
        zeros: Where the file holds no mask, let the exact zeros of its weights be the dead ones: a
            weight that only happens to be 0 is taken for dead.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, or holds no mask.

    >>> import tempfile
    >>> mask = Mask({"weight": torch.tensor([True, False])})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(mask, f"{folder}/mask.pt")
    ...     load(f"{folder}/mask.pt") == mask
    True
    """
    path = Path(path)
    payload, doubts = safe_load.contents(path), []
    if safe_load.ours(path, payload, "mask"):
        try:
            mask = None if payload["mask"] is None else Mask.unpack(payload["mask"])
            weights = dict(payload.get("dense", {}))
        except Exception:
            raise CheckpointError(f"{path} is no whole mask; write it again") from None
    else:
        try:
            _, found = state_dicts.read(payload)
        except ValueError as error:
            raise CheckpointError(f"{error}; {path} holds no mask") from None
        if found.fault:
            raise CheckpointError(f"{found.fault}; {path} holds no mask")
        mask, weights, doubts = found.mask, found.weights, found.doubts
    holes = None if mask else mask_conventions.zeros(weights)
    if mask is None and zeros:
        mask = holes
    if mask is None:
        hint = "; its weights hold zeros: zeros = true" if holes else ""
        raise CheckpointError("; ".join([*doubts, f"{path} holds no mask{hint}"]))
    return mask
