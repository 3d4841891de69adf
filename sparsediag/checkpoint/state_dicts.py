"""Find weights and masks in the files of other tools, whatever the nesting."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sparsediag.checkpoint import mask_conventions
from sparsediag.checkpoint.mask_conventions import MaskedWeights, Masks
from sparsediag.checkpoint.wrapper_names import strip_wrappers
from sparsediag.core.errors import CheckpointError

STATE_KEYS = ("state_dict", "model", "net", "model_state_dict", "model_state", "params")
MASK_KEY = re.compile(r"(.*_)?masks?(_(dict|state|state_dict))?")
LAYER_KEYS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked", "mask"}


def parse(
    payload: Mapping[Any, Any], weights: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, str], MaskedWeights]:
    """Return a description of a file, and its weights and mask; either may be missing.

    Args:
        payload: The dict that was read from the file.
        weights: Weights of another file, to which masks without weights belong.

    Raises:
        CheckpointError: If it holds the weights of several networks under unknown keys, or a
            tensor that torch cannot compute with.

    >>> about, masked = parse({"epoch": 3, "model": {"module.bias": torch.tensor([0.5])}})
    >>> about, masked.weights
    ({'file': "state dict, under 'model'", 'mask': 'none'}, {'bias': tensor([0.5000])})
    """
    inner, location, others = _find_state(payload)
    state, masks, fault = named_tensors(inner), list[Masks](), ""
    try:
        masks = list(_find_masks(payload))
    except CheckpointError as error:
        fault = str(error)
    if not state or _holds_masks_only(state, asked=weights is not None):
        masks = [m for m in ({n: t.bool() for n, t in state.items()}, *masks) if m]
        masked = mask_conventions.read_masks(masks, weights)
    else:
        masked = mask_conventions.read(state, masks)
    if fault:
        masked = replace(masked, mask=None, summary="none that can be used", fault=fault)
    version = payload.get("pytorch-lightning_version")
    converted = (
        t.dtype for t in inner.values() if isinstance(t, Tensor) and _is_quantised_or_fp8(t)
    )
    counts = Counter(str(kind).removeprefix("torch.") for kind in converted)
    about = {
        "file": (f"Lightning {version}" if version else "state dict") + location,
        "mask": masked.summary,
        "beside": ", ".join(others),
        "converted": ", ".join(f"{n} of {kind} became float32" for kind, n in counts.items()),
        "fault": masked.fault,
    }
    return {key: text for key, text in about.items() if text}, masked


def _find_state(payload: Mapping[Any, Any]) -> tuple[Mapping[Any, Any], str, list[str]]:
    """Return the state dict in a file, its location, and the keys of other state dicts."""
    state, location, others = payload, "", list[str]()
    while dicts := _candidate_dicts(state):
        inner = {k: _collect_tensors(v) for k, v in dicts.items()}
        nets = [
            key
            for key, tensors in inner.items()
            if any(t.dim() and t.is_floating_point() for t in tensors)
        ]
        known = [k for k in STATE_KEYS if inner.get(k)]
        weights_here = any(isinstance(t, Tensor) and t.dim() for t in state.values())
        layers = {k: dicts[k] for k, tensors in inner.items() if tensors}
        if not known and layers and all(dicts[k].keys() <= LAYER_KEYS for k in layers):
            return flatten({**state, **layers}), f"{location}, by layer", others
        if not known and (weights_here or not nets):
            break
        if not known and len(nets) > 1:
            names = ", ".join(f"'{k}'" for k in nets)
            raise CheckpointError(
                f"the weights of several nets are in it, {names}; save one of them"
            )
        key = (known or nets)[0]
        others += [f"'{k}'" for k in nets if k != key]
        state, location = dicts[key], f", under '{key}'"
    return state, location, others


def _find_masks(tree: Mapping[Any, Any]) -> Iterator[Masks]:
    """Find the masks under keys such as `mask`, `masks` or `backward_masks`, at any depth."""
    for key, value in tree.items():
        if MASK_KEY.fullmatch(str(key)) and isinstance(value, Mapping | list | tuple):
            yield from _masks_of(str(key), value)
        elif isinstance(value, Mapping) and "optim" not in str(key):
            yield from _find_masks(value)


def _masks_of(key: str, value: Any) -> Iterator[Masks]:
    """Return masks in dicts by name, or in a list in the order of the weights; none without any."""
    if isinstance(value, Mapping) and [*value] == [*range(len(value))]:
        value = [*value.values()]
    if isinstance(value, Mapping):
        if masks := {n: m for n, m in named_tensors(flatten(value)).items() if m.dim()}:
            yield masks
    elif all(isinstance(m, Tensor | None) for m in value):
        if any(isinstance(m, Tensor) for m in value):
            yield [None if m is None else to_computable(key, m) for m in value]
    elif all(isinstance(m, Mapping) for m in value):
        for masks in value:
            yield from _masks_of(key, masks)
    elif _holds_tensors(value):
        raise CheckpointError(
            f"'{key}' is a list of {type(value[0]).__name__}; need a dict of name -> tensor, or a "
            "list of tensors"
        )


def _holds_tensors(value: Any) -> bool:
    """Return whether a value holds a tensor, at any depth."""
    entries = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, Tensor) or (
        isinstance(value, Mapping | list | tuple) and any(map(_holds_tensors, entries))
    )


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of nested dicts; the names of dicts and tensors are joined by dots.

    >>> flatten({"fc": {"weight": torch.ones(1), "bias": None}})
    {'fc.weight': tensor([1.])}
    """
    flat: dict[str, Tensor] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, Tensor):
            flat[f"{prefix}{key}"] = value
    return flat


def _candidate_dicts(tree: Mapping[Any, Any]) -> dict[str, Mapping[Any, Any]]:
    """Return the dicts one level below that may be state dicts, by key; none of an optimizer."""
    dicts: dict[str, Mapping[Any, Any]] = {}
    for key, value in tree.items():
        entries = enumerate(value) if isinstance(value, list | tuple) else [("", value)]
        if isinstance(key, str) and not MASK_KEY.fullmatch(key) and "optim" not in key:
            dicts |= {f"{key}{i}": v for i, v in entries if isinstance(v, Mapping)}
    return dicts


def _collect_tensors(value: Any) -> list[Tensor]:
    """Return all tensors under string keys, at any depth."""
    if isinstance(value, Tensor):
        return [value]
    inner = value.items() if isinstance(value, Mapping) else ()
    return [t for key, v in inner if isinstance(key, str) for t in _collect_tensors(v)]


def named_tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors of a dict by the names of the network, so that torch computes with them.

    Raises:
        CheckpointError: If one is packed, or `to_computable` refuses it.
    """
    tensors = {str(n): t for n, t in state.items() if isinstance(t, Tensor)}
    if packed := [n for n in state if str(n).endswith("._packed_params")]:
        raise CheckpointError(
            f"'{packed[0]}' is packed by the quantisation of torch; save the network before it, or "
            "the weights that its layers return: layer.weight().dequantize()"
        )
    return strip_wrappers({n: to_computable(n, t) for n, t in tensors.items()})


def to_computable(name: str, t: Tensor) -> Tensor:
    """Return a dense tensor of a dtype that torch computes with.

    Raises:
        CheckpointError: If it has no values, or values that need another program.
    """
    if t.is_meta:
        raise CheckpointError(f"'{name}' is on the meta device: the file has its shape, no values")
    if t.is_nested:
        raise CheckpointError(f"'{name}' is a nested tensor, no weight; leave it out of the file")
    try:
        t = t.detach().dequantize() if t.is_quantized else t.detach()
        t = t if t.layout == torch.strided else t.to_dense()
        t = t.float() if _is_quantised_or_fp8(t) else t
        _ = t.flatten()[:1] == 0
    except (RuntimeError, NotImplementedError):
        kind = str(t.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"'{name}' is {kind}, with which torch does not compute; where it was made, save it as "
            "float32"
        ) from None
    return t


def _is_quantised_or_fp8(t: Tensor) -> bool:
    """Return whether a tensor is quantised, or of floating-point numbers of 8 bits."""
    return t.is_quantized or (t.is_floating_point() and t.dtype.itemsize == 1)


def _holds_masks_only(state: Mapping[str, Tensor], *, asked: bool) -> bool:
    """Return whether all tensors look like masks and none like a weight.

    A vector of 0 and 1 may be a batch norm as it starts, unless masks were asked for.
    """
    return all(
        (asked or t.dtype == torch.bool or t.dim() > 1) and mask_conventions.is_binary(t)
        for t in state.values()
    )
