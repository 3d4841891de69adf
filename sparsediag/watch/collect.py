"""Collect gradients and activations during the training steps before a row.

Nothing is changed: gradients and weights are copied, and the hooks on the net return nothing. They
exist only within a forward pass, apart from one that begins it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from sparsediag.diagnostics.activations import observed_modules, zero_observer
from sparsediag.diagnostics.layers.hooks import observe
from sparsediag.watch.processes import Part

Report = Callable[[str, Exception], None]  # a metric, and why it failed


def trained_weights(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name."""
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def check_whole(net: nn.Module) -> None:
    """Raise ValueError if the weights of a net are spread over processes."""
    for name, p in net.named_parameters():
        if hasattr(p, "device_mesh") or hasattr(p, "ds_id") or "_flat_param" in name:
            raise ValueError(
                f"'{name}' is spread over processes (FSDP, DeepSpeed), and one process measures; "
                "need whole weights, as under DistributedDataParallel"
            )


def learning_rates(optimizer: Optimizer) -> list[float]:
    """Return the learning rate of each group of weights that has one."""
    return [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]


def find_optimizers(given: object) -> list[Optimizer]:
    """Return the optimizers of torch in one optimizer or several, without wrappers around them.

    Raises:
        ValueError: If there is something else among them.
    """
    several: Iterable[object] = given if isinstance(given, list | tuple) else [given]
    optimizers = []
    for optimizer in several:
        inner = optimizer
        while (
            wrapped := getattr(inner, "optimizer", getattr(inner, "optimiser", None))
        ) is not None:
            inner = wrapped
        if not isinstance(inner, Optimizer):
            raise ValueError(
                f"the optimizer is {type(inner).__name__!r}; need a torch.optim.Optimizer, or a "
                "list of them"
            )
        optimizers.append(inner)
    return optimizers


class GradientReader:
    """Copies of the gradients as the optimizers get them, and before any mask is put on them.

    Torch runs the hooks that are common to all optimizers first. They are read before a step since
    many loops set them to zero right after it, and MaskedOptimizer masks them in it.

    Args:
        net: The network.
        optimizers: Its optimizers; without any, gradients are read after the step.
        report: Called as `report(metric, error)` if it fails.

    Attributes:
        active: True while gradients are to be read.
        due: True in a step that ends with a row.
        gradients: A copy by name of the weight; sparse ones are dense here.
        rates: The learning rates that a step used, by the index of its optimizer; the loop may
            change them right after it.
    """

    def __init__(self, net: nn.Module, optimizers: Sequence[Optimizer], report: Report) -> None:
        self.net, self.optimizers, self.report = net, [weakref.ref(o) for o in optimizers], report
        self.active = self.due = False
        self.gradients: dict[str, Tensor] = {}
        self.rates: dict[int, list[float]] = {}
        self.stack = ExitStack()
        if optimizers:
            self.stack.enter_context(
                register_optimizer_step_pre_hook(_Forgettable(self, "before_step"))
            )

    def end(self) -> None:
        """Remove the hook."""
        self.stack.close()

    def before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Copy the gradients, except if a closure has yet to compute them."""
        ours = [i for i, reference in enumerate(self.optimizers) if reference() is optimizer]
        if self.due and ours:
            self.rates[ours[0]] = learning_rates(optimizer)
        if not (self.active and ours) or any(map(callable, (*args[1:], *kwargs.values()))):
            return
        try:
            weights = {id(p) for group in optimizer.param_groups for p in group["params"]}
            self.read(weights, getattr(optimizer, "grad_scale", None))  # fused ones unscale later
        except Exception as error:
            self.report("gradient", error)

    @torch.no_grad()
    def read(self, weights: set[int] | None = None, scale: Tensor | None = None) -> None:
        """Copy the gradients of some weights, or of all that have no copy yet."""
        for name, p in trained_weights(self.net).items():
            chosen = name not in self.gradients if weights is None else id(p) in weights
            if chosen and p.grad is not None:
                gradient = p.grad.detach()
                gradient = gradient.to_dense() if gradient.layout != torch.strided else gradient
                self.gradients[name] = gradient.clone() if scale is None else gradient / scale


class ActivationCounter:
    """Counts of zeros in the activations of the training passes, module by module.

    Only passes that compute gradients in training mode count, so not those of a validation.

    Args:
        net: The network, without wrappers.
        modules: Globs of the modules to tell one by one; None for none.
        report: Called as `report(metric, error)` if it fails.

    Attributes:
        part: What was counted.
        default: Names of the modules that count by default.
        chosen: Names of those to tell one by one.
    """

    def __init__(self, net: nn.Module, modules: str | None, report: Report) -> None:
        self.net, self.report, self.part, self.observing = net, report, Part(), False
        self.default, self.functions, _ = observed_modules(net, None)
        self.chosen = observed_modules(net, modules)[0] if modules else []
        self.stack, self.pass_stack = ExitStack(), ExitStack()
        self.in_pass, self.callers = False, set[str]()

    def begin(self, *, observing: bool) -> None:
        """Count the samples of passes from now on, and if wanted their activations.

        A pass may begin in a part of the network: LightningModules are not called themselves.
        """
        self.part, self.observing, self.callers = Part(), observing, set()
        for name, module in (("", self.net), *self.net.named_children()):
            hook = _Forgettable(self, "before_forward", name)
            self.stack.enter_context(module.register_forward_pre_hook(hook, with_kwargs=True))

    def end(self) -> Part:
        """Remove all hooks; return what was counted."""
        self.pass_stack.close()
        self.stack.close()
        part, self.part = self.part, Part()
        return part

    def before_forward(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Put hooks on the modules for the length of one pass."""
        in_backward = torch._C._current_graph_task_id() >= 0  # activation checkpointing
        if self.in_pass or in_backward or not (module.training and torch.is_grad_enabled()):
            return
        try:
            self.callers.add(name)
            self.part.add_samples((*args, *kwargs.values()), clear=len(self.callers) == 1)
            if self.observing:
                self._observe((name, args, kwargs))
            self.in_pass = True
            self.pass_stack.callback(setattr, self, "in_pass", False)
            # The last hook of all: where torch goes through the hooks of a module that failed, only
            # the last one may remove others.
            end = module.register_forward_hook(lambda *_: self.pass_stack.close(), always_call=True)
            self.pass_stack.callback(end.remove)
        except Exception as error:
            self.pass_stack.close()
            self.report("activations", error)

    def _observe(self, begun: tuple[str, Any, Any]) -> None:
        labels = torch.zeros(0, dtype=torch.long)
        observer = zero_observer(self.net, self.part.counts, labels, lambda _: False)
        add = self.pass_stack.enter_context(observer)

        def add_safely(name: str, outputs: list[Tensor], call: int) -> None:
            try:
                add(name, outputs, call)
            except Exception as error:
                self.report("activations", error)

        names = dict.fromkeys([*self.default, *self.chosen])
        self.pass_stack.enter_context(
            observe(self.net, names, add_safely, functions=self.functions, begun=begun)
        )


class _Forgettable:
    """A hook that does not keep its owner alive, and does nothing in a copy of the network.

    Args:
        owner: Object with the method.
        method: Name of the method.
        first: Its first arguments.
    """

    def __init__(self, owner: object = None, method: str = "", *first: Any) -> None:
        self.owner = None if owner is None else weakref.ref(owner)
        self.method, self.first = method, first

    def __call__(self, *arguments: Any) -> None:
        owner = self.owner and self.owner()
        if owner is not None and not torch.compiler.is_compiling():
            getattr(owner, self.method)(*self.first, *arguments)

    def __reduce__(self) -> tuple[type[_Forgettable], tuple[()]]:
        return _Forgettable, ()
