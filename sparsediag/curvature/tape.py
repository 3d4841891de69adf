"""The loss on one batch as a list of operations, a tape, for products with curvature matrices.

The forward pass and the gradient are computed once and kept. A product of the Hessian with a vector
is then one sweep forward and one backward over the list (Pearlmutter, 1994), with six convolutions
for the three of a gradient: twice its cost. The Gauss-Newton matrix J^T (d2L/dz2) J and the
empirical Fisher matrix, the mean of g g^T over samples, use parts of the same sweeps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sparsediag.core.autograd_graph import storage_bytes
from sparsediag.core.batch_loss import BatchLoss, Matrix
from sparsediag.curvature.bn_folding import fold, foldable
from sparsediag.curvature.recorder import CannotRecord, RecordedOp, Recorder
from sparsediag.curvature.tape_rules import FAST, FREE_PHASE, Convolution, Local, Step


class Tape:
    """The loss on one batch, and products with its curvature matrices.

    Args:
        batch: The loss of one batch.
        weights: The tensors to differentiate by.

    Attributes:
        gradient: The gradient of the loss, a tensor for each weight.

    Raises:
        CannotRecord: If the network does something that cannot be recorded.

    >>> loss = BatchLoss(lambda w: w[0], lambda z: (z**4).sum(), samples=1)
    >>> tape = Tape(loss, [torch.tensor([3.0])])
    >>> tape.gradient[0].item(), tape.product([torch.ones(1)])[0].item()
    (108.0, 108.0)
    """

    def __init__(self, batch: BatchLoss, weights: Sequence[Tensor]) -> None:
        self.weights = [w.detach() for w in weights]
        self.batch = batch
        with torch.no_grad(), Recorder(self.weights) as recorder:
            outputs, loss = batch.evaluate(self.weights)
            self._outputs = recorder.number.get(id(outputs))
        if id(loss) not in recorder.number:
            raise CannotRecord("the loss does not depend on the weights")
        self._loss = recorder.number[id(loss)]
        self._output_values = outputs
        self.value = loss.detach()
        self.steps = _steps(recorder, {self._loss, self._outputs})
        self._backward()

    def _backward(self) -> None:
        """Compute the gradient, and drop the steps that the loss does not depend on."""
        slopes = {self._loss: torch.ones_like(self.value)}
        used = []
        for step in reversed(self.steps):
            value, rule, inputs = step
            if value in slopes:
                used.append(step)
                if value == self._outputs:
                    self._output_slope = slopes[value]
                _accumulate(slopes, inputs, rule.backward(slopes.pop(value)))
        self.steps = used[::-1]
        self.gradient = self._select_weights(slopes)

    @property
    def convolves(self) -> bool:
        """Return whether it contains a convolution."""
        return any(isinstance(rule, Convolution) for _, rule, _ in self.steps)

    @property
    def nbytes(self) -> int:
        """Bytes that the tape holds."""
        storages: dict[int, int] = {}
        for _, rule, _ in self.steps:
            for t in pytree.tree_leaves(list(vars(rule).values())):
                if isinstance(t, Tensor):
                    storages.update(storage_bytes(t))
        return sum(storages.values())

    def product(self, directions: Sequence[Tensor], matrix: Matrix = "hessian") -> list[Tensor]:
        """Return the matrix times a vector, both as a tensor for each weight.

        Raises:
            ValueError: If the network's outputs do not allow the matrix (see `BatchLoss`).
        """
        self.batch.check_matrix(self._output_values, matrix)
        changes: dict[int, Tensor | None] = dict(enumerate(directions))
        input_changes: list[list[Tensor | None]] = []
        for value, rule, inputs in self.steps:
            input_changes.append([changes.get(i) for i in inputs])
            changes[value] = rule.jvp(input_changes[-1])
        slopes = {self._loss: torch.zeros_like(self.value)}
        curved = True
        backward = zip(reversed(self.steps), reversed(input_changes), strict=True)
        for (value, rule, inputs), dx in backward:
            if matrix != "hessian" and value == self._outputs:
                curved = False
                if matrix == "fisher":
                    dz, slope = changes[value], self._output_slope
                    zero = torch.zeros_like(slope)
                    slopes[value] = zero if dz is None else self.batch.fisher_product(slope, dz)
            if value in slopes:
                _accumulate(slopes, inputs, rule.vjp_tangent(slopes.pop(value), dx, curved=curved))
        return self._select_weights(slopes)

    def _select_weights(self, slopes: dict[int, Tensor]) -> list[Tensor]:
        return [
            slopes[i] if i in slopes else torch.zeros_like(w) for i, w in enumerate(self.weights)
        ]


def _steps(recorder: Recorder, needed: set[int | None]) -> list[Step]:
    """Return the steps of all calls; a batch norm is folded into the convolution before it."""
    pairs = {n: c for n, c in foldable(recorder.calls).items() if c.number not in needed}
    inside = {before.number for before in pairs.values()}
    steps: list[Step] = []
    for call in recorder.calls:
        if call.number in pairs:
            steps.append(fold(call, pairs[call.number]))
        elif call.number not in inside:
            steps += _rules(call)
    return steps


def _rules(call: RecordedOp) -> list[Step]:
    """Return a step for every output that depends on the weights."""
    inputs, positions = list(call.active.values()), list(call.active)
    rule = FAST.get(call.operation)
    if rule and not call.kwargs and rule.fits(call.args):
        return [(call.number, rule(call.args, positions, call.outputs[0]), inputs)]
    leaves = [call.flat_args[i].detach().requires_grad_() for i in positions]
    with torch.enable_grad():
        outputs = call.rerun(leaves)
    moving = [isinstance(o, Tensor) and o.requires_grad for o in outputs]
    if any(moving) and torch.Tag.nondeterministic_seeded in call.operation.tags:
        raise CannotRecord(f"{call.operation} draws random numbers")
    if call.operation in FREE_PHASE and any(o.is_complex() for o in outputs):
        raise CannotRecord(f"the vectors of {call.operation} have a free phase")
    return [
        (call.number + i, Local(leaves, output), inputs)
        for i, output in enumerate(outputs)
        if isinstance(output, Tensor) and output.requires_grad
    ]


def _accumulate(slopes: dict[int, Tensor], inputs: list[int], parts: Sequence[Tensor]) -> None:
    for i, part in zip(inputs, parts, strict=True):
        slopes[i] = slopes[i] + part if i in slopes else part
