"""Replacements for functions whose second derivative torch lacks or gets wrong.

Fused attention, hard sigmoids (MobileNetV3) and bags of embeddings have none, sparse gradients
cannot be differentiated again, and that of the fused weight norm (torch 2.15:
`torch.autograd.gradgradcheck(torch._weight_norm, ...)` fails) or of a cross-entropy in chunks is
wrong.
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
    """Replace such functions inside the block, so that a net can be differentiated twice.

    >>> x = torch.tensor(1.0, requires_grad=True)
    >>> with twice_differentiable():
    ...     (slope,) = torch.autograd.grad(F.hardsigmoid(x) * x, x, create_graph=True)
    >>> torch.autograd.grad(slope, x)[0]
    tensor(0.3333)
    """
    with sdpa_kernel(SDPBackend.MATH), _Replace():
        yield


class _Replace(TorchFunctionMode):
    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        replacement: Callable[..., Any] = REPLACEMENTS.get(function, function)
        return replacement(*args, **(kwargs or {}))


def _hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    return F.relu6(x + 3) / 6


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    others = [d for d in range(v.dim()) if d != dim]
    norms: Tensor = torch.linalg.vector_norm(v, dim=others, keepdim=True)
    return v * (g / norms)


def _linear_cross_entropy(*args: Any, **kwargs: Any) -> Tensor:
    return F.linear_cross_entropy(*args, **{**kwargs, "options": None})


def _embedding(*args: Any, **kwargs: Any) -> Tensor:
    bound = signature(F.embedding).bind(*args, **kwargs)
    return F.embedding(**{**bound.arguments, "sparse": False})


def _embedding_bag(*args: Any, **kwargs: Any) -> Tensor:
    bound = signature(F.embedding_bag).bind(*args, **kwargs)
    bound.apply_defaults()
    names = ("input", "weight", "mode", "per_sample_weights", "padding_idx")
    indices, weight, mode, scale, padding = (bound.arguments[name] for name in names)
    if indices.dim() != 2 or mode == "max" or padding is not None:
        return F.embedding_bag(*args, **kwargs)
    rows = F.embedding(indices, weight)
    rows = rows if scale is None else rows * scale[..., None]
    bags: Tensor = rows.mean(1) if mode == "mean" else rows.sum(1)
    return bags


REPLACEMENTS: dict[Any, Callable[..., Tensor]] = {
    F.hardsigmoid: _hardsigmoid,
    F.embedding_bag: _embedding_bag,
    F.embedding: _embedding,
    torch._weight_norm: _weight_norm,
}
if hasattr(F, "linear_cross_entropy"):  # not in torch 2.10
    REPLACEMENTS[F.linear_cross_entropy] = _linear_cross_entropy
