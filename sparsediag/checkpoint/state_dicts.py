"""Find weights and masks in the files of other tools, whatever the nesting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sparsediag.checkpoint import mask_conventions
from sparsediag.checkpoint.mask_conventions import MaskedWeights
from sparsediag.core.errors import CheckpointError
from sparsediag.core.mask import Mask

STATE_KEYS = ("state_dict", "model", "net", "model_state_dict", "model_state", "params")
MASK_KEYS = ("mask", "masks")
WRAPPERS = ("module.", "_orig_mod.")  # of nn.DataParallel and torch.compile


def read(payload: Mapping[Any, Any]) -> tuple[dict[str, str], MaskedWeights]:
    """Return a description of a file, and its weights and mask; either may be missing.

    Args:
        payload: The dict that was read from the file.

    Raises:
        CheckpointError: If it holds the weights of several networks under unknown keys.

    >>> about, masked = read({"epoch": 3, "model": {"module.bias": torch.tensor([0.5])}})
    >>> about, masked.weights
    ({'file': "state dict, under 'model'", 'mask': 'none'}, {'bias': tensor([0.5000])})
    """
    inner, place, others = _find_state(payload)
    state, fault = strip_wrappers(inner), ""
    masks: dict[str, Tensor] = {}
    for key in MASK_KEYS:
        try:
            masks |= _mask_dict(key, payload.get(key))
        except CheckpointError as error:
            fault = str(error)
    masked = mask_conventions.read(state, masks if state else None)
    if fault:
        masked = replace(masked, mask=None, summary="none that can be used", fault=fault)
    if masked.mask is None and _holds_masks_only(state):
        only = {n.removesuffix("_mask"): m.bool() for n, m in {**state, **masks}.items()}
        masked = replace(masked, weights={}, mask=Mask(only) if only else None, fault="")
    version = payload.get("pytorch-lightning_version")
    about = {
        "file": (f"Lightning {version}" if version else "state dict") + place,
        "mask": masked.summary,
        "beside": ", ".join(others),
        "fault": masked.fault,
    }
    return {key: text for key, text in about.items() if text}, masked


def _find_state(payload: Mapping[Any, Any]) -> tuple[Mapping[Any, Any], str, list[str]]:
    """Return the state dict in a file, its place, and the keys of other state dicts beside it."""
    state, place, others = payload, "", []
    while inner := {k: _tensors(v) for k, v in state.items() if _may_be_state(k, v)}:
        nets = [
            key
            for key, tensors in inner.items()
            if any(t.dim() and t.is_floating_point() for t in tensors)
        ]
        known = [k for k in STATE_KEYS if inner.get(k)]
        weights_here = any(isinstance(t, Tensor) and t.dim() for t in state.values())
        if not known and (weights_here or not nets):
            break
        if not known and len(nets) > 1:
            names = ", ".join(f"'{k}'" for k in nets)
            raise CheckpointError(
                f"the weights of several nets are in it, {names}; save one of them"
            )
        key = (known or nets)[0]
        others += [f"'{k}'" for k in nets if k != key]
        state, place = state[key], f", under '{key}'"
    return state, place, others


def _may_be_state(key: Any, value: Any) -> bool:
    """Return whether a value may be a state dict; those of optimizers are left out by name."""
    named = isinstance(key, str) and key not in MASK_KEYS and "optim" not in key
    return named and isinstance(value, Mapping)


def _tensors(value: Any) -> list[Tensor]:
    """Return all tensors under string keys, at any depth."""
    if isinstance(value, Tensor):
        return [value]
    inner = value.items() if isinstance(value, Mapping) else ()
    return [t for key, v in inner if isinstance(key, str) for t in _tensors(v)]


def strip_wrappers(tensors: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return dense tensors by the names of the network, without the prefixes of wrappers.

    >>> sorted(strip_wrappers({"module.a": torch.ones(2), "n_averaged": torch.tensor(3)}))
    ['a']
    """
    state = {
        str(n): (t if t.layout == torch.strided else t.to_dense()).detach()
        for n, t in tensors.items()
        if isinstance(t, Tensor)
    }
    while inner := {n: t for n, t in state.items() if n.startswith(WRAPPERS)}:
        if any(t.dim() for n, t in state.items() if n not in inner):
            break
        state = {n.split(".", 1)[1]: t for n, t in inner.items()}
    return state


def _mask_dict(key: str, value: Any) -> dict[str, Tensor]:
    """Return the masks that a file holds under a key; a single tensor or number is no mask."""
    if value is None or isinstance(value, Tensor | str | int | float):
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(m, Tensor) for m in value.values()):
        raise CheckpointError(f"'{key}' is a {type(value).__name__}; need a dict of name -> tensor")
    return strip_wrappers(value)


def _holds_masks_only(state: Mapping[str, Tensor]) -> bool:
    """Return whether all tensors look like masks and none like a weight."""
    return all(
        (t.dtype == torch.bool or t.dim() > 1) and mask_conventions.is_binary(t)
        for t in state.values()
    )
