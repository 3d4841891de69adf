"""Hooks that see the outputs of modules and leave them unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sparsediag.core.batches import tensors
from sparsediag.core.errors import unknown
from sparsediag.core.prunable import linear

See = Callable[[str, Tensor, int], None]  # module, what came out of it, number of its call

# in the names of activations, whoever wrote them: nn.GELU, NewGELUActivation, Swish, F.relu
WORDS = ("elu", "silu", "swish", "mish", "tanh", "sigmoid", "softplus", "glu")
RECURRENT = (nn.RNNBase, nn.RNNCellBase)  # with their activations inside


def named(net: nn.Module, modules: str) -> list[str]:
    """Modules whose names match one of some globs, parted by commas, in the order of the net.

    Raises:
        ValueError: If there is none.

    >>> named(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), "0,2*")
    ['0', '2']
    """
    globs = [glob.strip() for glob in modules.split(",")]
    names = [name for name, _ in net.named_modules() if name] or [""]
    found = [name for name in names if any(fnmatchcase(name, glob) for glob in globs)]
    if not found:
        top = [name for name in names if "." not in name]
        raise ValueError(unknown("module", modules, names if len(names) < 30 else top))
    return found


def blocks(net: nn.Module) -> dict[str, bool]:
    """Where to look if nobody says: name -> whether it ends a stage.

    The blocks of the built-in nets are their residual blocks or layers, after the addition. In
    any other net they are its activation layers, by the names of their classes, and its recurrent
    layers; there may be functions too, see `tapped`.
    """
    stages, known = getattr(net, "stages", None), dict(net.named_modules())
    if isinstance(stages, list) and all(isinstance(stage, list) for stage in stages):
        ends = [(name, i + 1 == len(stage)) for stage in stages for i, name in enumerate(stage)]
        if ends and all(isinstance(name, str) and name in known for name, _ in ends):
            return dict(ends)
    leaves = {name: m for name, m in known.items() if not any(m.children())}
    return {
        name: False
        for name, m in leaves.items()
        if isinstance(m, RECURRENT) or any(word in type(m).__name__.lower() for word in WORDS)
    }


def layers(net: nn.Module) -> list[str]:
    """The convolutions and linear layers."""
    return [
        name
        for name, m in net.named_modules()
        if isinstance(m, nn.modules.conv._ConvNd) or linear(m)
    ]


@contextmanager
def tapped(
    net: nn.Module, names: Iterable[str], see: See, *, functions: bool = False
) -> Iterator[None]:
    """Inside the block, `see(name, output, call)` gets what comes out of every call of a module.

    Of a tuple or a dict it gets the first tensor of floating-point numbers. The calls of each
    module are counted from 0.

    Args:
        net: Its hooks are as they were after the block.
        names: Of the modules.
        see: Gets the outputs.
        functions: Also see activations that are functions (F.relu, torch.tanh), by the name of the
            module that calls them: "layer1.0.relu".
    """
    calls: Counter[str] = Counter()

    def tell(name: str, output: Any) -> None:
        if (a := _first(output)) is not None:
            see(name, a, calls[name])
            calls[name] += 1

    def hook(name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        tell(name, output)

    hooks, kept = [], list(names)
    try:
        for name in kept:
            hooks.append(net.get_submodule(name).register_forward_hook(partial(hook, name)))
        with ExitStack() as stack:
            if functions:
                running = stack.enter_context(_running(net))
                stack.enter_context(_Functions(running, set(kept), tell))
            yield
    finally:
        for handle in hooks:
            handle.remove()


class _Functions(TorchFunctionMode):
    """Sees activations that are called as functions, unless a module of `known` calls them."""

    def __init__(self, running: list[str], known: set[str], tell: Callable[[str, Any], None]):
        super().__init__()
        self.running, self.known, self.tell = running, known, tell

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        word = getattr(function, "__name__", "").strip("_")
        caller = self.running[-1] if self.running else ""
        if any(w in word for w in WORDS) and caller not in self.known:
            self.tell(f"{caller}.{word}".lstrip("."), output)
        return output


@contextmanager
def _running(net: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are running inside the block, the innermost last."""
    running: list[str] = []

    def enter(name: str, *_: Any) -> None:
        running.append(name)

    def leave(*_: Any) -> None:
        running.pop()

    hooks = []
    try:
        for name, m in net.named_modules():
            hooks.append(m.register_forward_pre_hook(partial(enter, name)))
            hooks.append(m.register_forward_hook(leave))
        yield running
    finally:
        for handle in hooks:
            handle.remove()


def _first(output: Any) -> Tensor | None:
    """The first tensor of floating-point numbers in what a module gives."""
    found = tensors(output) or tensors(list(getattr(output, "__dict__", {}).values()))
    return next((t for t in found if t.is_floating_point() and t.dim() and t.numel()), None)
