"""Trial: whether a net, its batches and its loss go together; found out before anything is made."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.utils import _pytree as pytree

from sparsediag.mask import Mask

if TYPE_CHECKING:
    from sparsediag.problem import Problem

PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def bare(net: nn.Module) -> nn.Module:
    """The net without what runs it: `torch.compile`, or copies of it on several GPUs.

    >>> bare(nn.DataParallel(nn.Linear(2, 1)))
    Linear(in_features=2, out_features=1, bias=True)
    """
    inner = net.module if isinstance(net, PARALLEL) else getattr(net, "_orig_mod", None)
    return bare(inner) if isinstance(inner, nn.Module) else net


def typed(problem: Problem) -> None:
    """Raise ValueError where a net, a loss or a mask is none."""
    net, mask, loss = problem.net, problem.mask, problem.loss
    for name, came, fits, need in (
        ("net", net, isinstance(net, nn.Module), "an nn.Module; make one of a class first"),
        ("mask", mask, isinstance(mask, Mask | None), "a Mask, as Mask.top(scores, density=0.1)"),
        ("loss", loss, callable(loss), "a function of outputs and targets"),
    ):
        if not fits:
            what = came.__name__ if isinstance(came, type) else type(came).__name__
            raise ValueError(f"the {name} is {what!r}; need {need}")


def usable(net: nn.Module) -> None:
    """Raise ValueError where a net cannot be a function of its parameters."""
    for name, module in net.named_modules():
        if any(isinstance(hook, BasePruningMethod) for hook in module._forward_pre_hooks.values()):
            raise ValueError(
                f"'{name or type(net).__name__}' is pruned by torch.nn.utils.prune; "
                "`net, mask = sparsediag.plain(net)` gives the plain net and its mask"
            )
    for name, p in net.named_parameters():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise ValueError(f"'{name}' has no shape yet; run one batch through the net first")
        if p.is_meta or p.is_complex():
            kind = "on the meta device, without values" if p.is_meta else "complex"
            raise ValueError(f"'{name}' is {kind}; need real numbers")


def check(problem: Problem) -> None:
    """A net that takes the first batch, a finite loss, and the same one at a second pass.

    Raises:
        ValueError: If one of them is not so.
    """
    ((x, y), *_), weights = problem.batches, problem.split(problem.weights)
    with problem.modes(), torch.no_grad():
        try:
            still = {name: t.clone() for name, t in problem._still.items()}
            outputs = problem.call(weights, x, still=still)
            written = (name for name, t in still.items() if t.is_inference() or t._version)
            problem._writable.update(written)
        except Exception as error:
            raise _failed(f"the net failed on inputs {told(x)}", error) from error
        try:
            with warnings.catch_warnings():  # shapes that broadcast give another loss
                warnings.filterwarnings("error", message="Using a target size")
                first = float(problem.scalar(outputs, y))
        except Exception as error:
            about = f"outputs {told(outputs)} and targets {told(y)}"
            raise _failed(f"the loss failed on {about}", error) from error
        again = float(problem.scalar(problem.call(weights, x), y))
    if not math.isfinite(value := problem.value()):
        raise ValueError(
            f"the loss is {value} at these weights; need a finite loss. "
            "Did the training diverge, or are the inputs not normalised?"
        )
    if abs(first - again) > torch.finfo(problem.weights.dtype).eps ** 0.75 * max(1.0, abs(first)):
        raise ValueError(
            f"the same batch gave two different losses ({first:.6g}, {again:.6g}): something "
            "in the net is random. Need a net that is fixed in evaluation mode."
        )


def _failed(what: str, error: Exception) -> Exception:
    """One line, unless the memory is short."""
    if isinstance(error, torch.OutOfMemoryError):
        return error
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return ValueError(f"{what}: {kind}{' '.join(str(error).split())[:300]}")


def told(tree: Any) -> str:
    """The shapes of tensors in a tuple or a dict.

    >>> told({"x": torch.ones(2, 3), "n": 4})
    "{'x': (2, 3), 'n': 4}"
    """
    shapes = pytree.tree_map_only(Tensor, lambda t: tuple(t.shape), tree)
    return str(shapes)[:200]
