"""Weights and masks in the files of other tools, whatever the nesting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sparsediag.checkpoint import mask_conventions
from sparsediag.checkpoint.mask_conventions import Found
from sparsediag.core.mask import Mask

NESTED = ("state_dict", "model", "net", "model_state_dict", "model_state", "params")
MASKS = ("mask", "masks")
WRAPPERS = ("module.", "_orig_mod.")  # of nn.DataParallel and torch.compile


def read(payload: Mapping[Any, Any]) -> tuple[dict[str, str], Found]:
    """Return the description of a file, its weights and its mask; either may be missing.

    Args:
        payload: The dict that was read from a file.

    Raises:
        ValueError: If the weights of several nets are there, and none is known to be the one.

    >>> told, found = read({"epoch": 3, "model": {"module.bias": torch.tensor([0.5])}})
    >>> told, found.weights
    ({'file': "state dict, under 'model'", 'mask': 'none'}, {'bias': tensor([0.5000])})
    """
    inner, where, beside = _inside(payload)
    state, fault = unwrapped(inner), ""
    masks: dict[str, Tensor] = {}
    for key in MASKS:
        try:
            masks |= _masks(key, payload.get(key))
        except ValueError as error:
            fault = str(error)
    found = mask_conventions.read(state, masks if state else None)
    if fault:
        found = replace(found, mask=None, line="none that can be used", fault=fault)
    if found.mask is None and _all_masks(state):
        kept = {n.removesuffix("_mask"): m.bool() for n, m in {**state, **masks}.items()}
        found = replace(found, weights={}, mask=Mask(kept) if kept else None, fault="")
    version = payload.get("pytorch-lightning_version")
    file = (f"Lightning {version}" if version else "state dict") + where
    told = {"file": file, "mask": found.line, "beside": ", ".join(beside), "fault": found.fault}
    return {what: line for what, line in told.items() if line}, found


def _inside(payload: Mapping[Any, Any]) -> tuple[Mapping[Any, Any], str, list[str]]:
    """The state dict in a file, the key that it is under, and the keys of others beside it."""
    inner, where, beside = payload, "", []
    while states := {k: _tensors(v) for k, v in inner.items() if _may_hold(k, v)}:
        nets = [k for k, found in states.items() if any(map(_weight, found))]
        known = [k for k in NESTED if states.get(k)]
        here = any(isinstance(t, Tensor) and t.dim() for t in inner.values())
        if not known and (here or not nets):
            break
        if not known and len(nets) > 1:
            names = ", ".join(f"'{k}'" for k in nets)
            raise ValueError(f"the weights of several nets are in it, {names}; save one of them")
        key = (known or nets)[0]
        beside += [f"'{k}'" for k in nets if k != key]
        inner, where = inner[key], f", under '{key}'"
    return inner, where, beside


def _may_hold(key: Any, value: Any) -> bool:
    """Return whether a net may be under a key; what optimisers keep looks like one."""
    named = isinstance(key, str) and key not in MASKS and "optim" not in key
    return named and isinstance(value, Mapping)


def _tensors(value: Any) -> list[Tensor]:
    """All tensors that have a name."""
    if isinstance(value, Tensor):
        return [value]
    inner = value.items() if isinstance(value, Mapping) else ()
    return [t for key, v in inner if isinstance(key, str) for t in _tensors(v)]


def _weight(t: Tensor) -> bool:
    return t.dim() > 0 and t.is_floating_point()


def unwrapped(tensors: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors by the names of the net, without what a wrapper put before all of them.

    >>> sorted(unwrapped({"module.a": torch.ones(2), "n_averaged": torch.tensor(3)}))
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


def _masks(key: str, value: Any) -> dict[str, Tensor]:
    """The masks in a dict of their own."""
    if value is None or isinstance(value, Tensor | str | int | float):
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(m, Tensor) for m in value.values()):
        raise ValueError(f"'{key}' is a {type(value).__name__}; need a dict of name -> tensor")
    return unwrapped(value)


def _all_masks(state: Mapping[str, Tensor]) -> bool:
    """Return whether there is no weight here."""
    return all(m.dtype == torch.bool or m.dim() > 1 for m in state.values()) and all(
        map(mask_conventions.binary, state.values())
    )
