"""Copy a network without the hooks and parametrisations that mask its weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from sparsediag.checkpoint import mask_conventions
from sparsediag.core.mask import Mask
from sparsediag.core.validation import unwrap


def plain(net: nn.Module) -> tuple[nn.Module, Mask | None]:
    """Return a copy of `net` with plain weights, dead ones exactly 0, and its mask, if any.

    Masks of `torch.nn.utils.prune` and of parametrisations are removed from the copy. Masks in
    buffers (`mask` or `weight_mask` beside `weight`) are read and kept.

    Args:
        net: Any module; it is not changed.

    Raises:
        ValueError: If a mask does not fit its weight, or a parametrisation does more than mask.

    >>> net = nn.Linear(3, 2)
    >>> _ = prune.l1_unstructured(net, "weight", 0.5)
    >>> copied, mask = plain(net)
    >>> sorted(dict(copied.named_parameters())), mask
    (['bias', 'weight'], Mask(3 of 6 weights alive, 1 tensors))
    """
    net = unwrap(net)
    tensors = [t for m in net.modules() for t in vars(m).values() if isinstance(t, Tensor)]
    # the masked weights that hooks have computed are no leaves, which deepcopy refuses
    copied = copy.deepcopy(net, {id(t): t.detach().clone() for t in tensors if not t.is_leaf})
    masked = mask_conventions.read(
        {n: t for n, t in net.state_dict().items() if isinstance(t, Tensor)}
    )
    if masked.fault:
        raise ValueError(masked.fault)
    for name, module in copied.named_modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)
        for weight in list(getattr(module, "parametrizations", ())):
            key = f"{name}.{weight}".lstrip(".")
            if key in (masked.mask or ()):
                if not torch.equal(getattr(module, weight), masked.weights[key]):
                    raise ValueError(f"the parametrisation of '{key}' does more than mask it")
                _copy_class(module)
                parametrize.remove_parametrizations(module, weight, leave_parametrized=False)
    if masked.mask is not None:
        masked.mask.apply_(copied)
    return copied, masked.mask


def _copy_class(module: nn.Module) -> None:
    """Give a copy a class of its own: torch made one for the original, and will change it."""
    kind = type(module)
    members = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, members)
