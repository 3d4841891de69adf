"""Activations that a network calls as functions, told from the other operations of its pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from sparsediag.core.batches import tensors_in

# parts of the names of activations, whoever wrote them: nn.GELU, NewGELUActivation, Swish, F.relu
NAMES = (
    *("elu", "silu", "swish", "mish", "tanh", "sigmoid", "expit", "softplus", "softsign", "glu"),
    *("threshold", "shrink"),
)
ELEMENTWISE = {
    *("abs", "absolute", "arctan", "asinh", "atan", "clamp", "clamp_max", "clamp_min", "clip"),
    *("ceil", "cos", "erf", "exp", "exp2", "expm1", "floor", "heaviside", "log1p", "logaddexp"),
    *(
        "pow",
        "rdiv",
        "reciprocal",
        "round",
        "rpow",
        "sgn",
        "sign",
        "sin",
        "sinc",
        "square",
        "trunc",
    ),
}
EXTREMES = {"fmax", "fmin", "max", "maximum", "min", "minimum"}  # of two tensors
SELECTIONS = {"masked_fill", "masked_scatter", "setitem", "where"}  # by a condition
PRODUCTS = {"div", "divide", "mul", "multiply", "true_divide"}
CONSTANT, INTEGER = "constant", "integer"


def names_activation(name: str) -> bool:
    """Return whether the name of a function or of a class, in small letters, is an activation's."""
    return any(part in name for part in NAMES)


class FunctionObserver(TorchFunctionMode):
    """Report activations that are functions, methods or operators: F.relu, x.clamp_(0), a * b.

    An activation is a nonlinear function of each element of a signal, which is a tensor that
    depends on the inputs:

    - a function with the name of an activation (`NAMES`), or one of `ELEMENTWISE`;
    - the larger or smaller of a signal and another tensor (`EXTREMES`);
    - a selection by a condition on a signal, as where(x > 0, x, 0), but not by a padding mask;
    - the product or quotient of two signals of the same shape: gates, and x * (x > 0).

    Not reported are functions inside of modules that are observed anyway, and the squares and
    quotients of norms: layers without parts whose class is named as one.

    Args:
        net: The network.
        observed: Names of the modules that are observed anyway.
        report: Function of a name and of what the activation returned.
        stack: Removes the hooks.
        begun: Name of the module in which a pass has begun already, and its positional and keyword
            arguments.

    Attributes:
        kinds: The tensors that are no signals: constants, such as weights, which no input is part
            of; and integers, inputs such as tokens and masks that met no weight yet.
    """

    def __init__(
        self,
        net: nn.Module,
        observed: set[str],
        report: Callable[[str, Any], Any],
        stack: ExitStack,
        begun: tuple[str, Any, Any] | None = None,
    ) -> None:
        super().__init__()
        self.observed, self.report = observed, report
        self.running: list[tuple[str, nn.Module]] = []  # the innermost module last
        self.kinds: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        for name, module in net.named_modules():
            stack.enter_context(module.register_forward_pre_hook(partial(self._enter, name)))
            stack.enter_context(module.register_forward_hook(self._leave))
        start = net.register_forward_pre_hook(self._start, prepend=True, with_kwargs=True)
        stack.enter_context(start)
        if begun is not None:
            name, *arguments = begun
            self._start(net, *arguments)
            self._enter(name, net.get_submodule(name), ())

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(function, "__name__", "").strip("_")
        tensors = tensors_in((args, kwargs))
        is_activation = self._is_activation(name, tensors) and not self._is_inside(name)
        constant = name.endswith("_like") or name.startswith("new_")
        kind = CONSTANT if constant else self._kind(tensors)
        output = function(*args, **(kwargs or {}))
        changed = args[0] if name == "setitem" else output
        for tensor in tensors_in(changed):
            if kind:
                self.kinds[tensor] = kind
            else:
                self.kinds.pop(tensor, None)
        if is_activation:
            caller = self.running[-1][0] if self.running else ""
            self.report(f"{caller}.{name}".lstrip("."), changed)
        return output

    def _is_activation(self, name: str, tensors: list[Tensor]) -> bool:
        """Return whether a function of these tensors is an activation."""
        signals = [t for t in tensors if t not in self.kinds]
        if not signals:
            return False
        if names_activation(name) or name in ELEMENTWISE:
            return signals[0] is tensors[0]
        if name in EXTREMES:
            return len(tensors) > 1
        if name in SELECTIONS:
            return any(t.dtype == torch.bool for t in signals)
        return name in PRODUCTS and len(signals) == 2 and signals[0].shape == signals[1].shape

    def _kind(self, tensors: list[Tensor]) -> str | None:
        """Return the kind of a function's result; None if it is a signal."""
        kinds = [self.kinds.get(t) for t in tensors]
        if None in kinds or INTEGER not in kinds:
            return None if None in kinds else CONSTANT
        weights = [t for t, kind in zip(tensors, kinds, strict=True) if kind == CONSTANT]
        return None if any(t.is_floating_point() and t.dim() for t in weights) else INTEGER

    def _is_inside(self, function: str) -> bool:
        """Return whether a function is part of a module that is observed anyway, or of a norm."""
        if not self.running:
            return False
        name, module = self.running[-1]
        norm = "norm" in type(module).__name__.lower() and not any(module.children())
        return name in self.observed or (norm and not names_activation(function))

    def _start(self, net: nn.Module, args: Any, kwargs: Any) -> None:
        """Begin a pass of the network: note its weights, buffers and integer inputs."""
        integers = [t for t in tensors_in((args, kwargs)) if not t.is_floating_point()]
        for tensor in (*net.parameters(), *net.buffers()):
            self.kinds[tensor] = CONSTANT
        for tensor in integers:
            self.kinds[tensor] = INTEGER

    def _enter(self, name: str, module: nn.Module, _args: Any) -> None:
        self.running.append((name, module))

    def _leave(self, *_: Any) -> None:
        self.running.pop()
