"""Hooks that observe the outputs of modules and leave them unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sparsediag.core.batches import tensors_in
from sparsediag.core.errors import unknown_name
from sparsediag.core.prunable import is_linear

Observer = Callable[[str, Tensor, int], None]  # module, its output, number of the call from 0

# parts of the names of activations, whoever wrote them: nn.GELU, NewGELUActivation, Swish, F.relu
ACTIVATIONS = ("elu", "silu", "swish", "mish", "tanh", "sigmoid", "softplus", "glu")
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
        top = [name for name in names if "." not in name]
        raise ValueError(unknown_name("module", modules, names if len(names) < 30 else top))
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
        if not any(m.children())
        and (isinstance(m, RECURRENT) or _is_activation(type(m).__name__.lower()))
    }


def weight_layers(net: nn.Module) -> list[str]:
    """Return the names of the convolutions and linear layers."""
    return [
        name
        for name, m in net.named_modules()
        if isinstance(m, nn.modules.conv._ConvNd) or is_linear(m)
    ]


@contextmanager
def observe(
    net: nn.Module, names: Iterable[str], observer: Observer, *, functions: bool = False
) -> Iterator[None]:
    """Call `observer(name, output, call)` for every output of the modules inside the block.

    Of an output that is a tuple or a dict it gets the first floating-point tensor.

    Args:
        net: The network; the hooks are removed at the end of the block.
        names: Names of the modules.
        observer: Function of a name, a tensor and the number of the module's call, from 0.
        functions: Also observe activations that are functions (F.relu, torch.tanh), under the name
            of the module that calls them: "layer1.0.relu".
    """
    names, calls = list(names), Counter[str]()

    def report(name: str, output: Any) -> None:
        if (tensor := _first_tensor(output)) is not None:
            observer(name, tensor, calls[name])
            calls[name] += 1

    def hook(name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        report(name, output)

    with ExitStack() as stack:
        for name in names:
            module = net.get_submodule(name)
            stack.enter_context(module.register_forward_hook(partial(hook, name)))
        if functions:
            running = _track_running(net, stack)
            stack.enter_context(_FunctionObserver(running, set(names), report))
        yield


class _FunctionObserver(TorchFunctionMode):
    """Report activations called as functions, except inside modules that are observed anyway."""

    def __init__(
        self, running: list[str], observed: set[str], report: Callable[[str, Any], None]
    ) -> None:
        super().__init__()
        self.running, self.observed, self.report = running, observed, report

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "").strip("_")
        caller = self.running[-1] if self.running else ""
        if _is_activation(name) and caller not in self.observed:
            self.report(f"{caller}.{name}".lstrip("."), output)
        return output


def _track_running(net: nn.Module, stack: ExitStack) -> list[str]:
    """Return a list that holds the names of the running modules, the innermost last."""
    running: list[str] = []

    def enter(name: str, *_: Any) -> None:
        running.append(name)

    def leave(*_: Any) -> None:
        running.pop()

    for name, module in net.named_modules():
        stack.enter_context(module.register_forward_pre_hook(partial(enter, name)))
        stack.enter_context(module.register_forward_hook(leave))
    return running


def _is_activation(name: str) -> bool:
    return any(part in name for part in ACTIVATIONS)


def _first_tensor(output: Any) -> Tensor | None:
    """Return the first floating-point tensor with entries in a module's output."""
    candidates = tensors_in(output) or tensors_in(list(getattr(output, "__dict__", {}).values()))
    return next((t for t in candidates if t.is_floating_point() and t.dim() and t.numel()), None)
