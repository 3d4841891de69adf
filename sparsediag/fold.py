"""Folding: a convolution and the batch norm after it are one convolution with other weights.

With g = scale / sqrt(var + eps), a batch norm by running statistics turns x * w into
x * (w g) + (shift - mean g). Nothing is approximated: the folded weights are functions of the
weights on the tape like everything else, and the tape passes over the images a few times less.
"""

from __future__ import annotations

from collections import Counter

import torch

from sparsediag.record import Call
from sparsediag.rules import Affine, Convolution, Local, Step


def foldable(calls: list[Call]) -> dict[int, Call]:
    """Number of a batch norm's output -> the convolution whose only reader it is."""
    readers = Counter(i for call in calls for i in call.active.values())
    made = {call.number: call for call in calls}
    return {
        call.number: before
        for call in calls
        if call.operation in Affine.OPS
        and list(call.active) == [0, 1, 2]
        and Affine.fits(call.args)
        and (before := made.get(call.active[0])) is not None
        and before.operation in Convolution.OPS
        and 1 in before.active
        and before.args[2] is None  # no bias
        and not before.args[6]  # not transposed
        and readers[before.number] == 1
    }


def fold(norm: Call, before: Call, free: int) -> list[Step]:
    """The steps of both: folded weight, folded bias, convolution; values `free`, `free + 1`."""
    w, scale, shift = (
        t.detach().requires_grad_() for t in (before.args[1], norm.args[1], norm.args[2])
    )
    mean, var, eps = norm.args[3], norm.args[4], norm.args[7]
    with torch.enable_grad():
        g = scale * torch.rsqrt(var + eps)
        weight = w * g.view(-1, *[1] * (w.dim() - 1))
        bias = shift - mean * g
    scale_from, shift_from = norm.active[1], norm.active[2]
    x_from = [before.active[0]] if 0 in before.active else []
    args = [before.args[0], weight.detach(), bias.detach(), *before.args[3:]]
    places = [*range(1 - len(x_from), 1), 1, 2]
    return [
        (free, Local([w, scale], weight), [before.active[1], scale_from]),
        (free + 1, Local([scale, shift], bias), [scale_from, shift_from]),
        (
            norm.number,
            Convolution(args, places, norm.outputs[0]),
            [*x_from, free, free + 1],
        ),
    ]
