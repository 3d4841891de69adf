"""Replacements for functions whose second derivative torch lacks or gets wrong.

Fused attention, hard sigmoids (MobileNetV3) and bags of embeddings have none, sparse gradients
cannot be multiplied further, and that of the fused weight norm is wrong (torch 2.15:
`torch.autograd.gradgradcheck(torch._weight_norm, ...)` fails).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Inside the block, what a net calls can be differentiated twice.

    >>> x = torch.tensor(1.0, requires_grad=True)
    >>> with twice_differentiable():
    ...     (slope,) = torch.autograd.grad(F.hardsigmoid(x) * x, x, create_graph=True)
    >>> torch.autograd.grad(slope, x)[0]
    tensor(0.3333)
    """
    with sdpa_kernel(SDPBackend.MATH), _Equal():
        yield


class _Equal(TorchFunctionMode):
    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        equal: Callable[..., Any] = EQUAL.get(function, function)
        return equal(*args, **(kwargs or {}))


def _hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    return F.relu6(x + 3) / 6


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    others = [d for d in range(v.dim()) if d != dim]
    lengths: Tensor = torch.linalg.vector_norm(v, dim=others, keepdim=True)
    return v * (g / lengths)


def _embedding(*args: Any, **kwargs: Any) -> Tensor:
    asked = signature(F.embedding).bind(*args, **kwargs)
    return F.embedding(**{**asked.arguments, "sparse": False})


def _embedding_bag(*args: Any, **kwargs: Any) -> Tensor:
    asked = signature(F.embedding_bag).bind(*args, **kwargs)
    asked.apply_defaults()
    indices, weight, how, share, padding = (
        asked.arguments[name]
        for name in ("input", "weight", "mode", "per_sample_weights", "padding_idx")
    )
    if indices.dim() != 2 or how == "max" or padding is not None:
        return F.embedding_bag(*args, **kwargs)
    rows = F.embedding(indices, weight)
    rows = rows if share is None else rows * share[..., None]
    bags: Tensor = rows.mean(1) if how == "mean" else rows.sum(1)
    return bags


EQUAL: dict[Any, Callable[..., Tensor]] = {
    F.hardsigmoid: _hardsigmoid,
    F.embedding_bag: _embedding_bag,
    F.embedding: _embedding,
    torch._weight_norm: _weight_norm,
}
