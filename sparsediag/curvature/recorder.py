"""Record the operations of a forward pass that depend on the weights, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

KEYS, KEY_SET = torch._C.DispatchKey, torch._C.DispatchKeySet
LAZY = KEY_SET(KEYS.Conjugate) | KEY_SET(KEYS.Negative) | KEY_SET(KEYS.ZeroTensor)


class CannotRecord(Exception):
    """The network does something that cannot be recorded."""


@dataclass
class RecordedOp:
    """An operation that was run, with its arguments as a flat list."""

    operation: Any
    flat_args: list[Any]
    tree_spec: Any
    active: dict[int, int]  # position of an argument that depends on the weights -> its number
    outputs: list[Any]
    number: int  # of the first output

    @property
    def args(self) -> Any:
        """The positional arguments."""
        return pytree.tree_unflatten(self.flat_args, self.tree_spec)[0]

    @property
    def kwargs(self) -> Any:
        """The keyword arguments."""
        return pytree.tree_unflatten(self.flat_args, self.tree_spec)[1]

    def rerun(self, active_values: list[Tensor]) -> list[Any]:
        """Return the outputs with these tensors as the active arguments."""
        flat_args = list(self.flat_args)
        for position, value in zip(self.active, active_values, strict=True):
            flat_args[position] = value
        args, kwargs = pytree.tree_unflatten(flat_args, self.tree_spec)
        return pytree.tree_leaves(_run_out_of_place(self.operation, args, kwargs))


class Recorder(TorchDispatchMode):
    """Record every operation whose inputs depend on the weights."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[RecordedOp] = []
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
        if any(isinstance(a, Tensor) and a.requires_grad for a in flat):
            raise CannotRecord("the network differentiates in its forward pass")
        active = {i: self.number[id(a)] for i, a in enumerate(flat) if id(a) in self.number}
        if not active:
            return operation(*args, **(kwargs or {}))
        target = None
        if operation._schema.is_mutable:
            _check_writes(operation)
            target = args[0]
            if id(target) not in self.number:
                raise CannotRecord("a constant tensor is written in place")
            storage = target.untyped_storage().data_ptr()
            if any(
                id(t) in self.number and t.untyped_storage().data_ptr() == storage
                for t in self.values
                if t is not target
            ):
                raise CannotRecord("a tensor is written in place while views of it exist")
        result = _run_out_of_place(operation, args, kwargs or {})
        outputs = pytree.tree_leaves(result)
        inputs = [a.detach() if isinstance(a, Tensor) else a for a in flat]
        values = [o.detach() if isinstance(o, Tensor) else o for o in outputs]
        self.calls.append(RecordedOp(operation, inputs, spec, active, values, len(self.values)))
        for i, output in enumerate(outputs):
            if isinstance(output, Tensor) and (output.is_floating_point() or output.is_complex()):
                self.number[id(output)] = len(self.values) + i
        self.values.extend(outputs)
        if target is None:
            return result
        target.set_(result)  # new memory, so the recorded tensor keeps its values
        self.number[id(target)] = self.number.pop(id(result))
        return target


def _check_writes(operation: Any) -> None:
    """Check that an operation writes into its first argument only, and returns it."""
    schema = operation._schema
    written = [a.name for a in schema.arguments if a.is_write]
    if written != [schema.arguments[0].name] or len(schema.returns) != 1:
        raise CannotRecord(f"{schema.name} writes in place into {', '.join(written)}")


def _run_out_of_place(operation: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation; if it works in place, on a copy of its first argument.

    Inside `__torch_dispatch__` torch 2.15 forgets conjugations that a kernel puts off
    (`torch.linalg.pinv` of a complex matrix is wrong there); the guard lets them be done.
    """
    if operation._schema.is_mutable:
        args = (args[0].clone(), *args[1:])
    local = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    with torch._C._ForceDispatchKeyGuard(local[0], local[1] - LAZY):
        return operation(*args, **kwargs)
