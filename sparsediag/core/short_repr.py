"""A repr that fits on a line or two, for dataclasses that hold tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

MAX_ENTRIES, MAX_LENGTH = 3, 60


def short_repr(self: Any) -> str:
    """Return the fields of a dataclass, of tensors the shape and of long lists the length.

    >>> @dataclasses.dataclass
    ... class Pixels:
    ...     images: np.ndarray
    ...     __repr__ = short_repr
    >>> Pixels(np.zeros((9, 3, 8, 8)))
    Pixels(images=array (9, 3, 8, 8))
    """
    fields = dataclasses.fields(self)
    texts = [f"{field.name}={_short(getattr(self, field.name))}" for field in fields]
    return f"{type(self).__name__}({', '.join(texts)})"


def _short(value: Any) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"{'tensor' if isinstance(value, Tensor) else 'array'} {tuple(value.shape)}"
    if isinstance(value, Mapping | tuple | list):
        kind = "[]" if isinstance(value, list) else "{}" if isinstance(value, Mapping) else "()"
        if isinstance(value, Mapping) or len(value) > MAX_ENTRIES:
            return f"{kind[0]}{len(value):,} entries{kind[1]}" if value else kind
        return kind[0] + ", ".join(map(_short, value)) + kind[1]
    text = " ".join(repr(value).split())
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."
