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
    """A copy of `net` with plain weights, the dead ones exactly 0, and the mask, if it has one.

    Masks of `torch.nn.utils.prune` and of parametrisations are taken out of the copy. Masks in
    buffers (`mask` or `weight_mask` beside `weight`) are read, and stay where they are.

    Args:
        net: Any module; it is left as it is.

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
    # what hooks have computed cannot be copied with the rest
    copied = copy.deepcopy(net, {id(t): t.detach().clone() for t in tensors if not t.is_leaf})
    found = mask_conventions.read(
        {n: t for n, t in net.state_dict().items() if isinstance(t, Tensor)}
    )
    if found.fault:
        raise ValueError(found.fault)
    for name, module in copied.named_modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)
        for weight in list(getattr(module, "parametrizations", ())):
            key = f"{name}.{weight}".lstrip(".")
            if key in (found.mask or ()):
                if not torch.equal(getattr(module, weight), found.weights[key]):
                    raise ValueError(f"the parametrisation of '{key}' does more than mask it")
                _of_its_own_class(module)
                parametrize.remove_parametrizations(module, weight, leave_parametrized=False)
    if found.mask is not None:
        found.mask.apply_(copied)
    return copied, found.mask


def _of_its_own_class(module: nn.Module) -> None:
    """A copy shares the class that torch made for the original, and changes it with its own."""
    kind = type(module)
    own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, own)
