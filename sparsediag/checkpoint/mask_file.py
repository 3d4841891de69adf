"""Masks in files of their own, and the masks in the files of other tools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sparsediag.checkpoint import mask_conventions, safe_load, state_dicts
from sparsediag.checkpoint.wrapper_names import rename
from sparsediag.core import errors
from sparsediag.core.atomic import atomic_write
from sparsediag.core.errors import CheckpointError
from sparsediag.core.mask import Mask


def save(mask: Mask, path: str | Path) -> None:
    """Write a mask to a file; after an error the old file is still there.

    Args:
        mask: The live weights.
        path: The file, replaced if it exists.

    Raises:
        OSError: If it cannot be written.
    """
    with atomic_write(path) as draft, draft.open("wb") as file:
        torch.save({"format": safe_load.FORMAT, "mask": mask.pack()}, file)


def load(
    path: str | Path, *, zeros: bool = False, weights: Mapping[str, Tensor] | None = None
) -> Mask:
    """Read a mask from a file of this package or of another tool, without running code from it.

    The file may be one of `save`, a checkpoint with a mask (of this package or of another tool, see
    `Checkpoint.load`), or a dict of name -> tensor of booleans or of 0 and 1. With `weights`, its
    names may be those of layers, and it may be a list with None for what is not pruned.

    Args:
        path: The file.
        zeros: If the file has no mask, take the exact zeros of its weights for dead; a weight that
            is 0 by chance counts as dead too.
        weights: The weights that it belongs to, by name.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, has no valid mask, or does not fit `weights`.

    >>> import tempfile
    >>> mask = Mask({"weight": torch.tensor([True, False])})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(mask, f"{folder}/mask.pt")
    ...     load(f"{folder}/mask.pt") == mask
    True
    """
    path = Path(path)
    payload, ignored = safe_load.load_dict(path), []
    if safe_load.is_own_format(path, payload, "mask"):
        try:
            mask = None if payload["mask"] is None else Mask.unpack(payload["mask"])
            values = dict(payload.get("dense", {}))
        except Exception:
            raise CheckpointError(f"{path} is no whole mask; write it again") from None
    else:
        try:
            _, masked = state_dicts.parse(payload, weights)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {path} holds no mask") from None
        if masked.fault:
            raise CheckpointError(f"{masked.fault}; {path} holds no mask")
        mask, values, ignored = masked.mask, masked.weights, masked.ignored
    if mask is not None:
        return mask if weights is None else _fit(path, mask, weights)
    from_zeros = mask_conventions.zeros(values)
    if from_zeros is None or not zeros:
        hint = "; its weights hold zeros: zeros = true" if from_zeros else ""
        raise CheckpointError("; ".join([*ignored, f"{path} holds no mask{hint}"]))
    return from_zeros if weights is None else _fit(path, from_zeros, weights)


def _fit(path: Path, mask: Mask, weights: Mapping[str, Tensor]) -> Mask:
    """Return a mask by the names of the weights, and check names and shapes."""
    fitted = Mask(rename(mask, weights))
    for name, m in fitted.items():
        if name not in weights:
            fault = errors.unknown_name("weight named by the mask:", name, weights)
        elif m.shape != weights[name].shape:
            shapes = tuple(m.shape), tuple(weights[name].shape)
            fault = f"mask of '{name}' is {shapes[0]}, the weight is {shapes[1]}"
        else:
            continue
        raise CheckpointError(f"{path} does not fit the net: {fault}")
    return fitted
