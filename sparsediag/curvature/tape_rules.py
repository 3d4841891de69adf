"""Rules of the tape: first and second derivatives of one operation.

For z = op(x), with the cotangent z' = dL/dz, each rule has three maps. With dx a change of the
inputs and dz' a change of the cotangent (Pearlmutter's R operator, Neural Computation 1994):

    backward   x' = J^T z'
    jvp        dz = J dx
    vjp_tangent    dx' = J^T dz'  +  (dJ)^T z'          the second term is the curvature of op

`Local` derives them from autograd for any operation; the other rules are written out because that
is much faster. Inputs that do not depend on the weights are left out of all lists; a change of zero
is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

aten = torch.ops.aten
Changes = Sequence[Tensor | None]


class Rule(Protocol):
    """The derivatives of an operation at the inputs that it had."""

    def backward(self, z: Tensor) -> list[Tensor]:
        """Return the cotangents of the inputs; `z` is kept for `vjp_tangent`."""

    def jvp(self, dx: Changes) -> Tensor | None:
        """Return the change of the output."""

    def vjp_tangent(self, dz: Tensor, dx: Changes, *, curved: bool) -> list[Tensor]:
        """Return the changes of the inputs' cotangents, with the second term if `curved`."""


Step = tuple[int, Rule, list[int]]  # number of the output, its rule, numbers of the inputs


class Local:
    """Any operation, by a small autograd graph that is kept."""

    def __init__(self, inputs: list[Tensor], output: Tensor) -> None:
        self.inputs, self.output = inputs, output

    def backward(self, z: Tensor) -> list[Tensor]:
        self.z = z.detach().requires_grad_()
        with torch.enable_grad():
            self.slopes = torch.autograd.grad(
                self.output, self.inputs, self.z, create_graph=True, materialize_grads=True
            )
        return [s.detach() for s in self.slopes]

    def jvp(self, dx: Changes) -> Tensor | None:
        # x' = J^T z' is linear in z', so the transpose of its derivative by z' is J
        slopes, changes = self._curved_pairs(dx)
        if not slopes:
            return None
        return torch.autograd.grad(slopes, self.z, changes, retain_graph=True, allow_unused=True)[0]

    def vjp_tangent(self, dz: Tensor, dx: Changes, *, curved: bool) -> list[Tensor]:
        # z' . op(x) has a symmetric Hessian: its product with dx is the derivative of x' . dx by x
        slopes, changes = self._curved_pairs(dx) if curved else ([], [])
        return list(
            torch.autograd.grad(
                [self.output, *slopes],
                self.inputs,
                [dz, *changes],
                retain_graph=True,
                materialize_grads=True,
            )
        )

    def _curved_pairs(self, dx: Changes) -> tuple[list[Tensor], list[Tensor]]:
        pairs = [
            (s, d)
            for s, d in zip(self.slopes, dx, strict=True)
            if s.requires_grad and d is not None
        ]
        return [s for s, _ in pairs], [d for _, d in pairs]


class Convolution:
    """z = x * w + b, in any dimension, also transposed or in groups."""

    OPS = (aten.convolution.default,)

    def __init__(self, args: Sequence[Any], active: list[int], output: Tensor) -> None:
        self.x, self.w, self.b, *self.shape = args
        self.active = active
        self.bias_size = [output.shape[1]] if self.b is not None else None

    @staticmethod
    def fits(args: Sequence[Any]) -> bool:
        return True

    def backward(self, z: Tensor) -> list[Tensor]:
        self.z = z
        slopes = self._slopes(z, self.x, self.w, self.active)
        return [slopes[i] for i in self.active]

    def jvp(self, dx: Changes) -> Tensor | None:
        d = dict(zip(self.active, dx, strict=True))
        x, w, b = (d.get(i) for i in range(3))
        parts = [(x, self.w)] * (x is not None) + [(self.x, w)] * (w is not None)
        total: Tensor | None = None
        for image, kernel in parts:
            part = aten.convolution(image, kernel, b if total is None else None, *self.shape)
            total = part if total is None else total.add_(part)
        if total is None and b is not None:
            return b.view(-1, *[1] * (self.z.dim() - 2)).expand_as(self.z)
        return total

    def vjp_tangent(self, dz: Tensor, dx: Changes, *, curved: bool) -> list[Tensor]:
        d = dict(zip(self.active, dx, strict=True))
        changes = self._slopes(dz, self.x, self.w, self.active)
        if curved and 0 in self.active and d.get(1) is not None:
            changes[0] += self._slopes(self.z, self.x, d[1], [0])[0]
        if curved and 1 in self.active and d.get(0) is not None:
            changes[1] += self._slopes(self.z, d[0], self.w, [1])[1]
        return [changes[i] for i in self.active]

    def _slopes(self, z: Tensor, x: Any, w: Any, positions: list[int]) -> list[Tensor]:
        mask = [i in positions for i in range(3)]
        return list(aten.convolution_backward(z, x, w, self.bias_size, *self.shape, mask))


class Affine:
    """Batch norm that is fixed: z = (x - mean) r scale + shift, r = 1 / sqrt(var + eps)."""

    OPS = (
        aten.native_batch_norm.default,
        aten.cudnn_batch_norm.default,
        aten.miopen_batch_norm.default,
    )

    def __init__(self, args: Sequence[Any], active: list[int], output: Tensor) -> None:
        self.x, scale, _, self.mean, var, *_, eps = args[:8]
        self.view = [1, -1] + [1] * (self.x.dim() - 2)
        self.over = [i for i in range(self.x.dim()) if i != 1]
        self.r = torch.rsqrt(var + eps)
        self.gain = (scale * self.r).view(self.view)
        self.active = active

    @staticmethod
    def fits(args: Sequence[Any]) -> bool:
        return args[1] is not None and args[2] is not None and not args[5]

    def backward(self, z: Tensor) -> list[Tensor]:
        self.z = z
        total = z.sum(self.over)
        return self._select(z * self.gain, (z * self.x).sum(self.over), total)

    def jvp(self, dx: Changes) -> Tensor | None:
        x, scale, shift = self._by_position(dx)
        gain = None if scale is None else scale * self.r
        if gain is not None:
            shift = (0 if shift is None else shift) - self.mean * gain
        out: Tensor | None = None if shift is None else shift.view(self.view)
        for image, factor in ((x, self.gain), (self.x, gain)):
            if image is not None and factor is not None:
                factor = factor.view(self.view)
                out = image * factor if out is None else torch.addcmul(out, image, factor)
        return out if out is None else out.expand_as(self.x)

    def vjp_tangent(self, dz: Tensor, dx: Changes, *, curved: bool) -> list[Tensor]:
        x, scale, _ = self._by_position(dx)
        image, weighted = dz * self.gain, dz * self.x
        if curved and scale is not None:
            image.addcmul_(self.z, (scale * self.r).view(self.view))
        if curved and x is not None:
            weighted.addcmul_(self.z, x)
        return self._select(image, weighted.sum(self.over), dz.sum(self.over))

    def _by_position(self, dx: Changes) -> list[Tensor | None]:
        d = dict(zip(self.active, dx, strict=True))
        return [d.get(i) for i in range(3)]

    def _select(self, image: Tensor, weighted: Tensor, total: Tensor) -> list[Tensor]:
        slopes = (image, (weighted - self.mean * total) * self.r, total)
        return [slopes[i] for i in self.active]


class Relu:
    """z = max(x, 0)."""

    OPS = (aten.relu.default, aten.relu_.default)

    def __init__(self, args: Sequence[Any], active: list[int], output: Tensor) -> None:
        self.output = output

    @staticmethod
    def fits(args: Sequence[Any]) -> bool:
        return True

    def backward(self, z: Tensor) -> list[Tensor]:
        return [aten.threshold_backward(z, self.output, 0)]

    def jvp(self, dx: Changes) -> Tensor | None:
        return None if dx[0] is None else aten.threshold_backward(dx[0], self.output, 0)

    def vjp_tangent(self, dz: Tensor, dx: Changes, *, curved: bool) -> list[Tensor]:
        return [aten.threshold_backward(dz, self.output, 0)]


class Add:
    """z = x + y, of the same shape and dtype."""

    OPS = (aten.add.Tensor, aten.add_.Tensor)

    def __init__(self, args: Sequence[Any], active: list[int], output: Tensor) -> None:
        self.active = active

    @staticmethod
    def fits(args: Sequence[Any]) -> bool:
        x, y = args
        both = isinstance(x, Tensor) and isinstance(y, Tensor)
        return both and x.shape == y.shape and x.dtype == y.dtype

    def backward(self, z: Tensor) -> list[Tensor]:
        return [z] * len(self.active)

    def jvp(self, dx: Changes) -> Tensor | None:
        changes = [d for d in dx if d is not None]
        return sum(changes[1:], changes[0]) if changes else None

    def vjp_tangent(self, dz: Tensor, dx: Changes, *, curved: bool) -> list[Tensor]:
        return [dz] * len(self.active)


FAST = {op: rule for rule in (Convolution, Affine, Relu, Add) for op in rule.OPS}
# complex vectors are unique up to a phase, so only their combinations have second derivatives
FREE_PHASE = (aten._linalg_svd.default, aten._linalg_eigh.default, aten.linalg_eig.default)
