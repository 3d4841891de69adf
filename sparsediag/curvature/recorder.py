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
    """The net does something that a tape cannot follow."""


@dataclass
class Call:
    """An operation as it ran: its arguments in a row, and where the active ones come from."""

    operation: Any
    arguments: list[Any]
    spec: Any
    active: dict[int, int]  # position in the row -> number of the value
    outputs: list[Any]
    number: int  # of the first output among the values

    @property
    def args(self) -> Any:
        """The positional arguments."""
        return pytree.tree_unflatten(self.arguments, self.spec)[0]

    @property
    def kwargs(self) -> Any:
        """The arguments by keyword."""
        return pytree.tree_unflatten(self.arguments, self.spec)[1]

    def again(self, leaves: list[Tensor]) -> list[Any]:
        """The outputs, as functions of the active arguments."""
        row = list(self.arguments)
        for place, leaf in zip(self.active, leaves, strict=True):
            row[place] = leaf
        args, kwargs = pytree.tree_unflatten(row, self.spec)
        return pytree.tree_leaves(self.operation(*args, **kwargs))


class Recorder(TorchDispatchMode):
    """Notes every operation whose inputs depend on the weights."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.number = {id(w): i for i, w in enumerate(weights)}
        self.alive: list[Any] = list(weights)  # so that no id is used twice

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled in here, and shutting the compiler out takes 2 s to import it."""
        return False

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        row, spec = pytree.tree_flatten((args, kwargs or {}))
        active = {i: self.number[id(a)] for i, a in enumerate(row) if id(a) in self.number}
        if not active:
            return operation(*args, **(kwargs or {}))
        target = None
        if operation._schema.is_mutable:
            operation, target = self._pure(operation), args[0]
            place = target.untyped_storage().data_ptr()
            if id(target) not in self.number or any(
                id(t) in self.number and t.untyped_storage().data_ptr() == place
                for t in self.alive
                if t is not target
            ):
                raise CannotRecord("something is written in place that others look at")
        result = operation(*args, **(kwargs or {}))
        outputs = pytree.tree_leaves(result)
        kept = [a.detach() if isinstance(a, Tensor) else a for a in row]
        values = [o.detach() if isinstance(o, Tensor) else o for o in outputs]
        self.calls.append(Call(operation, kept, spec, active, values, len(self.alive)))
        for i, output in enumerate(outputs):
            if isinstance(output, Tensor) and output.is_floating_point():
                self.number[id(output)] = len(self.alive) + i
        self.alive.extend(outputs)
        if target is None:
            return result
        target.set_(result)  # a new place: what was recorded of the old one stays as it was
        self.number[id(target)] = self.number.pop(id(result))
        return target

    def _pure(self, operation: Any) -> Any:
        """The operation of which this one is the in-place form."""
        name = operation._schema.name.removeprefix("aten::")
        pure = getattr(torch.ops.aten, name.removesuffix("_"), None)
        overload = operation._overloadname
        if not name.endswith("_") or not hasattr(pure, overload):
            raise CannotRecord(f"{name} writes in place")
        return getattr(pure, overload)
