"""Tape: the loss on one batch as a list of operations, from which curvature is multiplied.

The forward pass and the gradient are computed once and kept; a product of the Hessian with a
vector is then one sweep forward and one back over the list (Pearlmutter, 1994): six convolutions
for the three of a gradient, so twice its cost. The Gauss-Newton matrix J^T (d2L/dz2) J and the
empirical Fisher matrix, the mean of g g^T over samples, are the same sweeps with less in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from sparsediag.rules import FAST, Convolution, Local, Rule

Matrix = Literal["hessian", "gauss-newton", "fisher"]


@dataclass(frozen=True)
class Pass:
    """One batch through a net: weights -> outputs -> loss.

    Attributes:
        outputs: From the weights, a list of tensors.
        loss: From the outputs, the mean over the samples.
        samples: Number of samples in the batch.
    """

    outputs: Callable[[Sequence[Tensor]], Any]
    loss: Callable[[Any], Tensor]
    samples: int

    def check(self, outputs: Any, matrix: Matrix) -> None:
        """Refuse outputs from which a matrix cannot be made."""
        if matrix != "hessian" and not isinstance(outputs, Tensor):
            kind = type(outputs).__name__
            raise ValueError(f"the net's output is a {kind}; matrix='{matrix}' needs one tensor")
        if matrix == "fisher" and len(outputs) != self.samples:
            raise ValueError(
                f"the net's output has {len(outputs)} rows for {self.samples} samples; "
                "matrix='fisher' needs one for each"
            )


class CannotRecord(Exception):
    """The net does something that a tape cannot follow."""


@dataclass
class _Call:
    """An operation as it ran: its arguments in a row, and where the active ones come from."""

    operation: Any
    arguments: list[Any]
    spec: Any
    active: dict[int, int]  # position in the row -> number of the value
    outputs: list[Any]
    number: int  # of the first output among the values

    def again(self, leaves: list[Tensor]) -> list[Any]:
        """The outputs, as functions of the active arguments."""
        row = list(self.arguments)
        for place, leaf in zip(self.active, leaves, strict=True):
            row[place] = leaf
        args, kwargs = pytree.tree_unflatten(row, self.spec)
        return pytree.tree_leaves(self.operation(*args, **kwargs))


class _Recorder(TorchDispatchMode):
    """Notes every operation whose inputs depend on the weights."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []
        self.number = {id(w): i for i, w in enumerate(weights)}
        self.alive: list[Any] = list(weights)  # so that no id is used twice

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
        self.calls.append(_Call(operation, kept, spec, active, values, len(self.alive)))
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


class Tape:
    """The loss on one batch, and products with its curvature matrices.

    Args:
        batch: The net on one batch.
        weights: The tensors that move.

    Attributes:
        gradient: Of the loss, a tensor for each weight.

    Raises:
        CannotRecord: If the net does what a tape cannot follow.

    >>> tape = Tape(Pass(lambda w: w[0], lambda z: (z**4).sum(), samples=1), [torch.tensor([3.0])])
    >>> tape.gradient[0].item(), tape.product([torch.ones(1)])[0].item()
    (108.0, 108.0)
    """

    def __init__(self, batch: Pass, weights: Sequence[Tensor]) -> None:
        self.weights = [w.detach() for w in weights]
        self.batch = batch
        with torch.no_grad(), _Recorder(self.weights) as recorder:
            outputs = batch.outputs(self.weights)
            loss = batch.loss(outputs)
        if id(loss) not in recorder.number:
            raise CannotRecord("the loss does not depend on the weights")
        self._loss = recorder.number[id(loss)]
        self._outputs, self._came_out = recorder.number.get(id(outputs)), outputs
        self.value = loss.detach()
        self.steps: list[tuple[int, Rule, list[int]]] = []  # value, rule, values that it came from
        for call in recorder.calls:
            self.steps.extend(_steps(call))
        self._sweep_back()

    def _sweep_back(self) -> None:
        """The gradient; steps that the loss does not depend on are dropped."""
        slopes = {self._loss: torch.ones_like(self.value)}
        used = []
        for step in reversed(self.steps):
            value, rule, inputs = step
            if value in slopes:
                used.append(step)
                if value == self._outputs:
                    self._output_slope = slopes[value]
                _collect(slopes, inputs, rule.backward(slopes.pop(value)))
        self.steps = used[::-1]
        self.gradient = [slopes.get(i, torch.zeros_like(w)) for i, w in enumerate(self.weights)]

    @property
    def convolves(self) -> bool:
        """Whether there is a convolution on it."""
        return any(isinstance(rule, Convolution) for _, rule, _ in self.steps)

    @property
    def nbytes(self) -> int:
        """Memory that the tape holds."""
        held = {}
        for _, rule, _ in self.steps:
            for t in pytree.tree_leaves(list(vars(rule).values())):
                if isinstance(t, Tensor):
                    storage = t.untyped_storage()
                    held[storage.data_ptr()] = storage.nbytes()
        return sum(held.values())

    def product(self, directions: Sequence[Tensor], matrix: Matrix = "hessian") -> list[Tensor]:
        """The matrix times a vector, both as a tensor for each weight.

        Raises:
            ValueError: If the matrix needs other outputs than the net's; see `Pass.check`.
        """
        self.batch.check(self._came_out, matrix)
        change: dict[int, Tensor | None] = dict(enumerate(directions))
        came: list[list[Tensor | None]] = []
        for value, rule, inputs in self.steps:
            came.append([change.get(i) for i in inputs])
            change[value] = rule.push(came[-1])
        slopes = {self._loss: torch.zeros_like(self.value)}
        curved = True
        for (value, rule, inputs), dx in zip(reversed(self.steps), reversed(came), strict=True):
            if matrix != "hessian" and value == self._outputs:
                curved = False
                if matrix == "fisher":
                    slopes[value] = self._per_sample(change[value])
            if value in slopes:
                _collect(slopes, inputs, rule.pull(slopes.pop(value), dx, curved=curved))
        return [slopes.get(i, torch.zeros_like(w)) for i, w in enumerate(self.weights)]

    def _per_sample(self, change: Tensor | None) -> Tensor:
        """What the outer product of each sample's slope does to a change of the outputs."""
        slope = self._output_slope
        if change is None:
            return torch.zeros_like(slope)
        along = (slope * change).flatten(1).sum(1) * self.batch.samples
        return slope * along.view(-1, *[1] * (slope.dim() - 1))


def _steps(call: _Call) -> list[tuple[int, Rule, list[int]]]:
    """A step for every output that the weights move."""
    inputs, places = list(call.active.values()), list(call.active)
    rule, (args, kwargs) = (
        FAST.get(call.operation),
        pytree.tree_unflatten(call.arguments, call.spec),
    )
    if rule and not kwargs and rule.fits(args):
        return [(call.number, rule(args, places, call.outputs[0]), inputs)]
    leaves = [call.arguments[i].detach().requires_grad_() for i in places]
    with torch.enable_grad():
        outputs = call.again(leaves)
    return [
        (call.number + i, Local(leaves, output), inputs)
        for i, output in enumerate(outputs)
        if isinstance(output, Tensor) and output.requires_grad
    ]


def _collect(slopes: dict[int, Tensor], inputs: list[int], parts: Sequence[Tensor]) -> None:
    for i, part in zip(inputs, parts, strict=True):
        slopes[i] = slopes[i] + part if i in slopes else part
