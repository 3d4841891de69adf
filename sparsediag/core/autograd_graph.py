"""The graph that autograd records: its nodes, their memory, and NaN at dead weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def graph_nodes(tensors: Sequence[Tensor]) -> Iterator[Any]:
    """Yield every node that some tensors were computed by, once.

    >>> w = torch.ones(2, requires_grad=True)
    >>> [node.name() for node in graph_nodes([w.exp()])]
    ['ExpBackward0', 'torch::autograd::AccumulateGrad']
    """
    nodes, seen = [t.grad_fn for t in tensors], set[Any]()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [following for following, _ in node.next_functions]
            yield node


def storage_bytes(t: Tensor) -> dict[int, int]:
    """Return the address of a tensor's memory and its bytes; nothing if it has none of its own.

    Sparse tensors, constants that are all zero, and those that `torch.func` wraps have none.
    """
    try:
        storage = t.untyped_storage()
        return {storage.data_ptr(): storage.nbytes()}
    except (RuntimeError, NotImplementedError):
        return {}


def saved_bytes(tensors: Sequence[Tensor]) -> int:
    """Return the bytes of memory that the graph of some tensors holds.

    The graph is read after it is made: `torch.func` does not allow hooks on what is saved.
    """
    held = dict[int, int]()  # address -> bytes
    for node in graph_nodes(tensors):
        kind: Any = type(node)
        for name in _saved_names(kind):
            for t in pytree.tree_leaves(getattr(node, name)):
                held |= storage_bytes(t) if isinstance(t, Tensor) else {}
    return sum(held.values())


@cache
def _saved_names(kind: Any) -> list[str]:
    return [name for name in dir(kind) if name.startswith("_saved_") or name == "saved_tensors"]


def check_differentiable_again(gradient: Sequence[Tensor]) -> None:
    """Check that the derivative of a gradient is not cut off.

    Raises:
        NotImplementedError: If a function in the net is marked as differentiable only once. Torch
            itself takes its second derivative for 0 if asked for the derivative by some inputs.
    """
    if any(node.name() == "torch::autograd::Error" for node in graph_nodes(gradient)):
        raise NotImplementedError("a function in it is marked with @once_differentiable")


def zero_nan(tensors: Sequence[Tensor]) -> None:
    """Let the backward pass through the graph of some tensors replace NaN by 0.

    A row of dead weights is constant. Where it is normalised, the chain rule may multiply a change
    of exactly 0 by an infinite derivative (that of sqrt at 0), and the NaN would spread from there
    to all live weights, though the product is 0.
    """
    for node in graph_nodes(tensors):
        node.register_prehook(_without_nan)


def _without_nan(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    inf = torch.inf
    return tuple(
        g if g is None else torch.nan_to_num(g, nan=0.0, posinf=inf, neginf=-inf) for g in gradients
    )
