"""Names of weights without those of the modules that tools wrap around a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from torch import Tensor

Value = TypeVar("Value")
OUTER = ("module.", "_orig_mod.")  # of nn.DataParallel and torch.compile
# of torch.compile, activation checkpointing, FSDP and Lightning, wherever they are in a name
INNER = r"(?<![^.])(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module|_forward_module)\."


def bare_name(name: str) -> str:
    """Return a name without all wrappers, to compare it with another.

    >>> bare_name("module.body._orig_mod.fc._checkpoint_wrapped_module.weight")
    'body.fc.weight'
    """
    return re.sub(r"(?<![^.])module\.", "", re.sub(INNER, "", name))


def strip_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by the names of the network.

    A `module.` inside of a name may be the network's own, and stays.

    >>> import torch
    >>> sorted(strip_wrappers({"module.a": torch.ones(2), "n_averaged": torch.tensor(3)}))
    ['a']
    """
    state = {re.sub(INNER, "", n): t for n, t in tensors.items()}
    state = state if len(state) == len(tensors) else dict(tensors)
    while inner := {n: t for n, t in state.items() if n.startswith(OUTER)}:
        if any(t.dim() for n, t in state.items() if n not in inner):
            break
        state = {n.split(".", 1)[1]: t for n, t in inner.items()}
    return state


def rename(tensors: Mapping[str, Value], names: Iterable[str]) -> dict[str, Value]:
    """Return tensors by the names that they have in a network, after a prefix or none.

    Args:
        tensors: By their names in a file.
        names: All names in the network.

    >>> rename({"model.a.module.weight": 1}, ["a._orig_mod.weight", "b"])
    {'model.a._orig_mod.weight': 1}
    """
    names = list(names)
    known = {bare_name(name): name for name in names}
    renamed = {}
    for name, value in tensors.items():
        bare = bare_name(name)
        starts = [0, *(match.end() for match in re.finditer(r"\.", bare))]
        start = next((i for i in starts if bare[i:] in known), None)
        renamed[name if start is None else bare[:start] + known[bare[start:]]] = value
    is_unique = len(known) == len(names) and len(renamed) == len(tensors)
    return renamed if is_unique else dict(tensors)
