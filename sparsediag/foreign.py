"""Foreign files: the weights and the mask that others have saved, whatever they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sparsediag import conventions
from sparsediag.conventions import Found
from sparsediag.mask import Mask

NESTED = ("state_dict", "model", "net", "model_state_dict")
MASKS = ("mask", "masks")
WRAPPERS = ("module.", "_orig_mod.")  # of nn.DataParallel and torch.compile


def read(payload: Mapping[Any, Any]) -> tuple[str, Found]:
    """What kind of file it is, and the weights and the mask in it; either may be missing.

    Args:
        payload: The dict that was read from a file.

    Raises:
        ValueError: If the mask does not go with the weights.

    >>> kind, found = read({"epoch": 3, "model": {"module.bias": torch.tensor([0.5])}})
    >>> kind, found.weights
    ("state dict, under 'model'", {'bias': tensor([0.5000])})
    """
    inner, where = payload, ""
    for key in NESTED:
        if isinstance(inner.get(key), Mapping):
            inner, where = inner[key], f", under '{key}'"
    state = unwrapped(inner)
    masks = {n: m for key in MASKS for n, m in _masks(key, payload.get(key)).items()}
    found = conventions.read(state, masks if state else None)
    if found.mask is None and _all_masks(state):
        kept = {n.removesuffix("_mask"): m.bool() for n, m in {**state, **masks}.items()}
        return "masks", Found({}, Mask(kept) if kept else None, found.line, found.doubts)
    version = payload.get("pytorch-lightning_version")
    return (f"Lightning {version}" if version else "state dict") + where, found


def unwrapped(tensors: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors by the names of the net, without what a wrapper put before all of them.

    >>> sorted(unwrapped({"module.a": torch.ones(2), "n_averaged": torch.tensor(3)}))
    ['a']
    """
    state = {
        str(n): t.detach()
        for n, t in tensors.items()
        if isinstance(t, Tensor) and t.layout == torch.strided
    }
    while inner := {n: t for n, t in state.items() if n.startswith(WRAPPERS)}:
        if any(t.dim() for n, t in state.items() if n not in inner):
            break
        state = {n.split(".", 1)[1]: t for n, t in inner.items()}
    return state


def _masks(key: str, value: Any) -> dict[str, Tensor]:
    """The masks in a dict of their own."""
    if value is None or isinstance(value, Tensor | str | int | float):
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(m, Tensor) for m in value.values()):
        raise ValueError(f"'{key}' is a {type(value).__name__}; need a dict of name -> tensor")
    return unwrapped(value)


def _all_masks(state: Mapping[str, Tensor]) -> bool:
    """Whether there is no weight here."""
    return all(m.dtype == torch.bool or m.dim() > 1 for m in state.values()) and all(
        map(conventions.binary, state.values())
    )
