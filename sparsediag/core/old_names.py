"""Keywords that have other names or spellings, which work too, in Python and as flags."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

RENAMED = {
    "basis": "max_basis",
    "batch": "batch_size",
    "before": "previous_mask",
    "block": "block_size",
    "max_products": "max_matvecs",
    "normalize": "normalise",
    "probes": "num_probes",
    "shared": "compare",
    "steps": "lanczos_steps",
    "vectors": "include_1d",
}


def accept_old_names(function: F) -> F:
    """Let a function take keywords by their old names as well.

    >>> double = accept_old_names(lambda *, num_probes: 2 * num_probes)
    >>> double(probes=3), double(num_probes=3)
    (6, 6)
    """
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    renamed = {
        old: new
        for old, new in RENAMED.items()
        if old not in parameters and (takes_any or new in parameters)
    }

    @wraps(function)
    def with_new_names(*args: Any, **keywords: Any) -> Any:
        for old in renamed.keys() & keywords.keys():
            if renamed[old] in keywords:
                raise TypeError(f"'{old}' is another name of '{renamed[old]}'; give one of them")
            keywords[renamed[old]] = keywords.pop(old)
        return function(*args, **keywords)

    return cast(F, with_new_names)
