"""Mask files: a mask by itself in a file, and the masks that other tools leave in theirs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsediag import archive
from sparsediag.errors import CheckpointError
from sparsediag.files import written
from sparsediag.mask import Mask

NESTED = ("state_dict", "model", "net", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")


def save(mask: Mask, path: str | Path) -> None:
    """Write a mask to a file of its own, whole or not at all."""
    with written(path) as draft, draft.open("wb") as file:
        torch.save({"format": archive.FORMAT, "mask": mask.pack()}, file)


def load(path: str | Path, *, zeros: bool = False) -> Mask:
    """The mask in a file, whoever wrote it. Nothing in the file is ever run.

    It may be a file that `save` wrote, a checkpoint of ours, the state dict of a net pruned by
    `torch.nn.utils.prune` (`weight_orig` and `weight_mask`), a state dict with masks in buffers
    (`weight_mask`, or `mask` beside a `weight`), or a dict of name -> tensor of booleans or of 0
    and 1.

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
    payload = archive.contents(Path(path))
    if not isinstance(payload, dict):
        raise CheckpointError(f"{path} holds a {type(payload).__name__}; need a dict of tensors")
    if isinstance(payload.get("format"), int) and "mask" in payload:
        archive.known(Path(path), payload)
        try:
            mask = None if payload["mask"] is None else Mask.unpack(payload["mask"])
            state = _state(payload.get("dense", {}))
        except Exception:
            raise CheckpointError(f"{path} is no whole mask; write it again") from None
    else:
        state = _state(payload)
        mask = _kept_in(state)
    if mask is None and zeros:
        mask = _zeros(state)
    if mask is None:
        holes = "" if zeros or not _zeros(state) else "; its weights hold zeros: zeros = true"
        raise CheckpointError(f"{path} holds no mask{holes}")
    return mask


def _state(payload: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors by the names of the net, without what a wrapper put before them."""
    for key in NESTED:
        if isinstance(payload.get(key), dict):
            payload = payload[key]
    found = {}
    for name, value in payload.items():
        name = str(name)
        while name.startswith(PREFIXES):
            name = name.split(".", 1)[1]
        if isinstance(value, Tensor) and value.layout == torch.strided:
            found[name] = value
    return found


def _kept_in(state: Mapping[str, Tensor]) -> Mask | None:
    """The masks among the tensors, by the name of the weight that they are for."""
    masks = {}
    for name, m in state.items():
        module, _, last = name.rpartition(".")
        of = f"{module}.weight".lstrip(".") if last == "mask" else name.removesuffix("_mask")
        weight = state.get(f"{of}_orig", state.get(of)) if of != name else None
        if weight is not None and weight.shape == m.shape and m.dim() and _binary(m):
            masks[of] = m
    if not masks and state and all(m.dtype == torch.bool or m.dim() > 1 for m in state.values()):
        masks = dict(state) if all(map(_binary, state.values())) else {}
    return Mask({name: m.bool() for name, m in masks.items()}) if masks else None


def _zeros(state: Mapping[str, Tensor]) -> Mask | None:
    weights = {n: w for n, w in state.items() if w.dim() > 1 and w.is_floating_point()}
    holed = {
        n: w != 0 for n, w in weights.items() if (w == 0).any() and not (_binary(w) and w.any())
    }
    return Mask(holed) if holed else None


def _binary(values: Tensor) -> bool:
    return bool(((values == 0) | (values == 1)).all())
