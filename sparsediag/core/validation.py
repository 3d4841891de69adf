"""Check a network, a mask and a loss before a Problem is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.utils import _pytree as pytree

from sparsediag.core.mask import Mask

PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrap(net: nn.Module) -> nn.Module:
    """Return the net without wrappers: `torch.compile`, or copies on several GPUs.

    >>> unwrap(nn.DataParallel(nn.Linear(2, 1)))
    Linear(in_features=2, out_features=1, bias=True)
    """
    inner = net.module if isinstance(net, PARALLEL) else getattr(net, "_orig_mod", None)
    return unwrap(inner) if isinstance(inner, nn.Module) else net


def check_types(net: object, mask: object, loss: object) -> None:
    """Raise ValueError if a network, a mask or a loss is of another type."""
    for name, value, valid, need in (
        ("net", net, isinstance(net, nn.Module), "an nn.Module; call a class to make one"),
        ("mask", mask, isinstance(mask, Mask | None), "a Mask, as Mask.top(scores, density=0.1)"),
        ("loss", loss, callable(loss), "a function of outputs and targets"),
    ):
        if not valid:
            kind = value.__name__ if isinstance(value, type) else type(value).__name__
            raise ValueError(f"the {name} is {kind!r}; need {need}")


def check_differentiable(net: nn.Module) -> None:
    """Raise ValueError if a net is not a function of real parameters with values."""
    for name, module in net.named_modules():
        if any(isinstance(hook, BasePruningMethod) for hook in module._forward_pre_hooks.values()):
            raise ValueError(
                f"'{name or type(net).__name__}' is pruned by torch.nn.utils.prune; "
                "`net, mask = sparsediag.strip_pruning(net)` gives the net and its mask"
            )
    for name, p in net.named_parameters():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise ValueError(f"'{name}' has no shape yet; run one batch through the net first")
        if p.is_meta or p.is_complex():
            kind = "on the meta device, without values" if p.is_meta else "complex"
            raise ValueError(f"'{name}' is {kind}; need real numbers")


@contextmanager
def explain_errors(message: str) -> Iterator[None]:
    """Turn any error in the block but a lack of memory into a ValueError of one line."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{message}: {kind}{' '.join(str(error).split())[:300]}") from error


def describe_shapes(tree: Any) -> str:
    """Return the shapes of the tensors in a tensor, tuple or dict, as text."""
    shapes = pytree.tree_map_only(Tensor, lambda t: tuple(t.shape), tree)
    return str(shapes)[:200]
