"""Fingerprints that show whether two results have the same network, data and loss."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

SIMPLE = (int, float, str)


def fingerprint(about: str, tensors: Iterable[Tensor]) -> str:
    """Return the hex digest of a text and the bytes of tensors."""
    sha = hashlib.sha256(about.encode())
    for t in tensors:
        sha.update(t.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def describe_modules(net: nn.Module) -> str:
    """Return the code and plain options of a network's modules as text.

    >>> describe_modules(nn.Linear(2, 1))  # torch's own modules are described by their repr
    '[]'
    """
    custom = [m for m in net.modules() if not type(m).__module__.startswith("torch.")]
    options = [
        sorted((k, v) for k, v in vars(m).items() if k != "training" and isinstance(v, SIMPLE))
        for m in custom
    ]
    codes = {type(m).__qualname__: describe_callable(type(m).forward.__code__) for m in custom}
    return str([codes, options]) if custom else "[]"


def describe_callable(loss: Any) -> str:
    """Return the code and options of a function or module as text, the same in every process.

    >>> plain, smooth = nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)
    >>> describe_callable(plain) == describe_callable(smooth)
    False
    """
    if isinstance(loss, partial):
        options = [describe_callable(value) for _, value in sorted(loss.keywords.items())]
        return (
            f"{describe_callable(loss.func)} {[describe_callable(a) for a in loss.args]} {options}"
        )
    if isinstance(loss, CodeType):
        constants = [describe_callable(c) for c in loss.co_consts]
        return f"{loss.co_code.hex()} {loss.co_names} {constants}"
    if code := getattr(loss, "__code__", None):
        held = [describe_callable(cell.cell_contents) for cell in loss.__closure__ or ()]
        return f"{loss.__qualname__} {describe_callable(code)} {loss.__defaults__} {held}"
    if isinstance(loss, Tensor):
        return fingerprint(str(tuple(loss.shape)), [loss])
    if isinstance(loss, nn.Module):
        plain = sorted((k, v) for k, v in vars(loss).items() if isinstance(v, SIMPLE))
        return f"{loss} {plain} {fingerprint('', loss.state_dict().values())}"
    plain_types = (int, float, str, bytes, tuple, type(None))
    return repr(loss) if isinstance(loss, plain_types) else type(loss).__qualname__
