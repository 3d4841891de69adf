"""Hooks that observe the outputs of modules and leave their values unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sparsediag.core.batches import tensors_in, tree_map
from sparsediag.core.errors import unknown_path
from sparsediag.core.prunable import is_linear
from sparsediag.diagnostics.layers.functions import FunctionObserver, names_activation

Observer = Callable[[str, list[Tensor], int], None]  # module, its outputs, number of the call

RECURRENT = (nn.RNNBase, nn.RNNCellBase)  # their activations are inside


def match_modules(net: nn.Module, modules: str) -> list[str]:
    """Return the names of modules that match one of some globs separated by commas.

    Raises:
        ValueError: If no module matches.

    >>> match_modules(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), "0,2*")
    ['0', '2']
    """
    globs = [glob.strip() for glob in modules.split(",")]
    names = [name for name, _ in net.named_modules() if name] or [""]
    matches = [name for name in names if any(fnmatchcase(name, glob) for glob in globs)]
    if not matches:
        raise ValueError(unknown_path("module", modules, names))
    return matches


def default_modules(net: nn.Module) -> dict[str, bool]:
    """Return the modules to observe by default: name -> is it the last block of a stage?

    In a built-in network they are its residual blocks or layers, after the addition. In any other
    network they are its activation layers, recognised by their class names, and its recurrent
    layers; it may call activations as functions too, see `observe`.
    """
    stages, modules = getattr(net, "stages", None), dict(net.named_modules())
    if isinstance(stages, list) and all(isinstance(stage, list) for stage in stages):
        blocks = [(name, i + 1 == len(stage)) for stage in stages for i, name in enumerate(stage)]
        if blocks and all(isinstance(name, str) and name in modules for name, _ in blocks):
            return dict(blocks)
    return {
        name: False
        for name, m in modules.items()
        if not list(m.children())
        and (isinstance(m, RECURRENT) or names_activation(type(m).__name__.lower()))
    }


def weight_layer_names(net: nn.Module) -> list[str]:
    """Return the names of the convolutions and linear layers."""
    return [
        name
        for name, m in net.named_modules()
        if isinstance(m, nn.modules.conv._ConvNd) or is_linear(m)
    ]


@contextmanager
def observe(
    net: nn.Module,
    names: Iterable[str],
    observer: Observer,
    *,
    functions: bool = False,
    views: bool = False,
    begun: tuple[str, Any, Any] | None = None,
) -> Iterator[None]:
    """Call `observer(name, outputs, call)` for every call of the modules inside the block.

    The outputs are all floating-point tensors in what a module returns.

    Args:
        net: The network; the hooks are removed at the end of the block.
        names: Names of the modules.
        observer: Function of a name, tensors and the number of the module's call, from 0.
        functions: Also observe activations that are functions, see `FunctionObserver`, under the
            name of the module that calls them: "layer1.0.relu".
        views: Where a module returns several tensors, as a recurrent one, let the network go on
            with views of them, so that the gradient at each is that of its use outside of the
            module.
        begun: Name of the module in which a pass has begun already, and its positional and keyword
            arguments.

    Raises:
        ValueError: If a part of the network is TorchScript, which calls no hooks.
    """
    names, calls = list(names), Counter[str]()
    for name, module in net.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"'{name or type(net).__name__}' is TorchScript, whose layers cannot be observed; "
                "give the network that it was made from"
            )

    def observe_output(name: str, output: Any) -> Any:
        """Call the observer; return the output, or views of its tensors if they are wanted."""
        outputs = _float_tensors(output)
        if views and len(outputs) > 1:
            viewed = {id(t): t.view_as(t) for t in outputs}
            output = tree_map(output, lambda t: viewed.get(id(t), t))
            outputs = _float_tensors(output)
        if outputs:
            observer(name, [_unwrap(t) for t in outputs], calls[name])
            calls[name] += 1
        return output

    def hook(name: str, _module: nn.Module, _args: Any, output: Any) -> Any:
        return observe_output(name, output)

    with ExitStack() as stack:
        for name in names:
            module = net.get_submodule(name)
            stack.enter_context(module.register_forward_hook(partial(hook, name)))
        if functions:
            stack.enter_context(FunctionObserver(net, set(names), observe_output, stack, begun))
        yield


def _float_tensors(output: Any) -> list[Tensor]:
    """Return the floating-point tensors with entries in a module's output, each once.

    Of an object whose parts torch does not know, it is the first one.
    """
    known = tensors_in(output)
    tensors = known or tensors_in(list(getattr(output, "__dict__", {}).values()))
    floats = {id(t): t for t in tensors if t.is_floating_point() and t.dim() and t.numel()}
    return list(floats.values()) if known else list(floats.values())[:1]


def _unwrap(t: Tensor) -> Tensor:
    """Return the tensor inside of `torch.func`'s transforms, the dimensions of `vmap` first."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(t):
        batched, inner = functorch.is_batchedtensor(t), functorch.get_unwrapped(t)
        t = inner.movedim(functorch.maybe_get_bdim(t), 0) if batched else inner
    return t
