"""Record the operations of a forward pass that depend on the weights, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class CannotRecord(Exception):
    """The network does something that cannot be recorded."""


@dataclass
class Call:
    """An operation that was run, with its arguments as a flat list."""

    operation: Any
    arguments: list[Any]
    spec: Any
    active: dict[int, int]  # position of an argument that depends on the weights -> its number
    outputs: list[Any]
    number: int  # of the first output

    @property
    def args(self) -> Any:
        """The positional arguments."""
        return pytree.tree_unflatten(self.arguments, self.spec)[0]

    @property
    def kwargs(self) -> Any:
        """The keyword arguments."""
        return pytree.tree_unflatten(self.arguments, self.spec)[1]

    def rerun(self, leaves: list[Tensor]) -> list[Any]:
        """Return the outputs with these tensors as the active arguments."""
        arguments = list(self.arguments)
        for position, leaf in zip(self.active, leaves, strict=True):
            arguments[position] = leaf
        args, kwargs = pytree.tree_unflatten(arguments, self.spec)
        return pytree.tree_leaves(self.operation(*args, **kwargs))


class Recorder(TorchDispatchMode):
    """Record every operation whose inputs depend on the weights."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.number = {id(w): i for i, w in enumerate(weights)}
        self.values: list[Any] = list(weights)  # kept, so that no id is reused

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False, since True makes torch import its compiler, which takes 2 s."""
        return False

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        flat, spec = pytree.tree_flatten((args, kwargs or {}))
        active = {i: self.number[id(a)] for i, a in enumerate(flat) if id(a) in self.number}
        if not active:
            return operation(*args, **(kwargs or {}))
        target = None
        if operation._schema.is_mutable:
            operation, target = _out_of_place(operation), args[0]
            storage = target.untyped_storage().data_ptr()
            if id(target) not in self.number or any(
                id(t) in self.number and t.untyped_storage().data_ptr() == storage
                for t in self.values
                if t is not target
            ):
                raise CannotRecord("a tensor is written in place while views of it exist")
        result = operation(*args, **(kwargs or {}))
        outputs = pytree.tree_leaves(result)
        inputs = [a.detach() if isinstance(a, Tensor) else a for a in flat]
        values = [o.detach() if isinstance(o, Tensor) else o for o in outputs]
        self.calls.append(Call(operation, inputs, spec, active, values, len(self.values)))
        for i, output in enumerate(outputs):
            if isinstance(output, Tensor) and output.is_floating_point():
                self.number[id(output)] = len(self.values) + i
        self.values.extend(outputs)
        if target is None:
            return result
        target.set_(result)  # new memory, so the recorded tensor keeps its values
        self.number[id(target)] = self.number.pop(id(result))
        return target


def _out_of_place(operation: Any) -> Any:
    """Return the form of an in-place operation that returns a new tensor."""
    name = operation._schema.name.removeprefix("aten::")
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    overload = operation._overloadname
    if not name.endswith("_") or not hasattr(packet, overload):
        raise CannotRecord(f"{name} writes in place")
    return getattr(packet, overload)
