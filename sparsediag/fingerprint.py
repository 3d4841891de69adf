"""Fingerprints: whether two results come from the same net, data and loss."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor


def fingerprint(about: str, tensors: Iterable[Tensor]) -> str:
    """Hex digest of some words and the bytes of tensors."""
    sha = hashlib.sha256(about.encode())
    for t in tensors:
        sha.update(t.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def content(loss: Any) -> str:
    """What a loss computes, as far as its code and options tell; the same in every process.

    >>> from torch import nn
    >>> content(nn.CrossEntropyLoss()) == content(nn.CrossEntropyLoss(label_smoothing=0.1))
    False
    """
    if isinstance(loss, partial):
        return f"{content(loss.func)} {loss.args} {sorted(loss.keywords.items())}"
    if code := getattr(loss, "__code__", None):
        return f"{loss.__qualname__} {code.co_code.hex()} {code.co_consts}"
    plain = {k: v for k, v in vars(loss).items() if isinstance(v, int | float | str)}
    return f"{type(loss).__qualname__} {sorted(plain.items())}"
