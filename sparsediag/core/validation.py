"""Check a network, a mask and a loss before a Problem is made of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from sparsediag.core.mask import Mask
from sparsediag.core.prunable import pruned_in_passes

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


def check_differentiable(net: nn.Module, mask: Mask | None = None) -> None:
    """Raise ValueError if torch's hooks prune a weight without the mask, or one has no values."""
    for name, _, _ in pruned_in_passes(net):
        if name not in (mask or {}):
            layer = name.rpartition(".")[0] or type(net).__name__
            raise ValueError(
                f"'{layer}' is pruned by torch.nn.utils.prune; "
                "`net, mask = sparsediag.strip_pruning(net)` gives the net and its mask"
            )
    for name, p in net.named_parameters():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise ValueError(f"'{name}' has no shape yet; run one batch through the net first")
        if p.is_meta:
            raise ValueError(f"'{name}' is on the meta device, without values; need real numbers")


def check_real(weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError if one of the weights that move is complex."""
    for name, w in weights.items():
        if w.is_complex():
            raise ValueError(
                f"'{name}' is complex; need real numbers: hold it fixed (requires_grad=False, or "
                "params= without it), or make its real and imaginary parts two parameters"
            )


@contextmanager
def explain_errors(message: str) -> Iterator[None]:
    """Turn any error in the block into a ValueError of one line, or one that says out of memory."""
    try:
        yield
    except Exception as error:
        raise explained_error(error, message) from error


# words in an error of autograd -> its cause and the way out; {} is the part in brackets
CAUSES = {
    r"modified by an inplace operation.*output \d+ of (\w+?)(?:Backward\d*)?,": (
        "an in-place operation (x += 1, relu_) overwrites a tensor that the derivative needs, "
        "an output of {}; write x = x + 1"
    ),
    "leaf Variable that requires grad is being used in an in-place": (
        "an in-place operation writes into a weight; compute a new tensor from it"
    ),
    r"derivative for '?(?:aten::)?_?(\w+?)_backward\b": (
        "PyTorch has no second derivative of {}; replace it by other operations"
    ),
    r"derivative for '?(?:aten::)?_?((?:inplace version of )?\w+)": (
        "PyTorch has no derivative of {}; replace it by other operations"
    ),
    "once_differentiable": (
        "a torch.autograd.Function is marked @once_differentiable; write its backward in "
        "differentiable operations"
    ),
    "aot_autograd|function was compiled": (
        "a part compiled by torch.compile has no second derivative; leave it uncompiled"
    ),
    "implement either the backward|returned an incorrect number of gradients": (
        "a torch.autograd.Function has no backward that fits its forward; mend it"
    ),
    r"call numpy\(\) on Tensor that requires grad": (
        "a part is computed by numpy, which has no derivatives; compute it by torch"
    ),
    "Inference tensors": (
        "it uses a tensor that was made in torch.inference_mode; make it outside, or clone it"
    ),
    "through the graph a second time": (
        "the net keeps tensors of an earlier pass, such as a cache or a hidden state; detach them"
    ),
    "use_reentrant": "torch.utils.checkpoint is used with use_reentrant=True; set it to False",
}


def explained_error(error: Exception, message: str) -> Exception:
    """Return an error that says in one line what failed (`message`) and the cause, if it is known.

    It is a ValueError, or a torch.OutOfMemoryError for a lack of memory on any device.

    >>> explained_error(NotImplementedError("the derivative for 'zeta' is not implemented."), "no")
    ValueError('no: PyTorch has no derivative of zeta; replace it by other operations')
    """
    line = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        return error
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in line:
        return torch.OutOfMemoryError(f"{message}: {line[:200]}")
    for words, cause in CAUSES.items():
        if match := re.search(words, line):
            return ValueError(f"{message}: {cause.format(*match.groups())}")
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return ValueError(f"{message}: {kind}{line[:300]}")


def check_gradient(outputs: Any, loss: Tensor) -> None:
    """Raise ValueError if a loss, computed with autograd, does not depend on the weights."""
    if loss.requires_grad:
        return
    moving = [t for t in pytree.tree_leaves(outputs) if isinstance(t, Tensor)]
    part, kinds = "net's outputs do", {t.dtype for t in moving if not t.is_floating_point()}
    if any(t.requires_grad for t in moving) or not moving:
        part, kinds = "loss does", {loss.dtype} - {torch.float32, torch.float64}
    raise ValueError(
        f"the {part} not depend on the weights by differentiable operations"
        f"{f' ({str(kinds.pop())[6:]})' if kinds else ''}; look for detach, torch.no_grad, .data, "
        ".item(), numpy, argmax, comparisons, or a conversion to integers"
    )


def describe_shapes(tree: Any) -> str:
    """Return the shapes of the tensors in a tensor, tuple or dict, as text."""

    def shape(leaf: Any) -> Any:
        if isinstance(leaf, PackedSequence):
            return f"packed {tuple(leaf.data.shape)}"
        return tuple(leaf.shape if not leaf.is_nested else ()) if isinstance(leaf, Tensor) else leaf

    packed = pytree.tree_map(shape, tree, is_leaf=lambda leaf: isinstance(leaf, PackedSequence))
    return str(packed)[:200]
