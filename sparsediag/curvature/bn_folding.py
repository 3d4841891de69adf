"""Batch-norm folding: a convolution and the batch norm after it become one convolution.

With g = scale / sqrt(var + eps), a batch norm with running statistics turns x * w into
x * (w g) + (shift - mean g). This is exact, and the tape reads the images a few times less.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from sparsediag.curvature.recorder import RecordedOp
from sparsediag.curvature.tape_rules import Affine, Changes, Convolution, Step


def foldable(calls: list[RecordedOp]) -> dict[int, RecordedOp]:
    """Return, by the number of a batch norm's output, the convolution that only it reads."""
    readers = Counter(i for call in calls for i in call.active.values())
    by_number = {call.number: call for call in calls}
    return {
        call.number: before
        for call in calls
        if call.operation in Affine.OPS
        and list(call.active) == [0, 1, 2]
        and Affine.fits(call.args)
        and (before := by_number.get(call.active[0])) is not None
        and before.operation in Convolution.OPS
        and 1 in before.active
        and before.args[2] is None  # no bias
        and not before.args[6]  # not transposed
        and readers[before.number] == 1
    }


def fold(norm: RecordedOp, before: RecordedOp) -> Step:
    """Return the step of a convolution and the batch norm after it."""
    x_from = [before.active[0]] if 0 in before.active else []
    inputs = [*x_from, before.active[1], norm.active[1], norm.active[2]]
    return norm.number, Folded(norm, before), inputs


class Folded(Convolution):
    """z = x * W + b with W = w g, b = shift - mean g, and g = scale r, r = 1 / sqrt(var + eps).

    With W' and b' the cotangents of W and b, those of w, scale and shift are W' g,
    (<W', w> - <mean, b'>) r and b'. A product of w and scale, W is curved itself.
    """

    def __init__(self, norm: RecordedOp, before: RecordedOp) -> None:
        x, w, _, *shape = before.args
        _, scale, shift, mean, var, *_, eps = norm.args[:8]
        r = torch.rsqrt(var + eps)
        g = scale * r
        self.column = [-1, *[1] * (w.dim() - 1)]
        self.weight, self.mean, self.r, self.g = w, mean, r, g.view(self.column)
        positions = [*range(1 - (0 in before.active), 1), 1, 2]
        super().__init__([x, w * self.g, shift - mean * g, *shape], positions, norm.outputs[0])

    def backward(self, z: Tensor) -> list[Tensor]:
        *image, self.slope, bias = super().backward(z)
        return [
            *image,
            self.slope * self.g,
            self._scale_slope(self.slope * self.weight, bias),
            bias,
        ]

    def jvp(self, dx: Changes) -> Tensor | None:
        *image, w, scale, shift = dx
        w = torch.zeros_like(self.weight) if w is None else w
        g = torch.zeros_like(self.r) if scale is None else scale * self.r
        shift = torch.zeros_like(g) if shift is None else shift
        column = g.view(self.column)
        change = torch.addcmul(w * self.g, self.weight, column)
        self.changes = w, column, change  # for `vjp_tangent`
        return super().jvp([*image, change, torch.addcmul(shift, self.mean, g, value=-1)])

    def vjp_tangent(self, dz: Tensor, dx: Changes, *, curved: bool) -> list[Tensor]:
        w, column, change = self.changes
        del self.changes
        *image, slope, bias = super().vjp_tangent(dz, [*dx[:-3], change, None], curved=curved)
        weight, along = slope * self.g, slope * self.weight
        if curved:
            weight.addcmul_(self.slope, column)
            along.addcmul_(self.slope, w)
        return [*image, weight, self._scale_slope(along, bias), bias]

    def _scale_slope(self, along: Tensor, bias: Tensor) -> Tensor:
        """Return the cotangent of the scale, from W' w and b'."""
        total = along.sum(list(range(1, along.dim())))
        return torch.addcmul(total, self.mean, bias, value=-1).mul_(self.r)
