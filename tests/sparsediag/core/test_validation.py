"""Causes: what keeps a loss from being differentiated once or twice, each by its own name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sparsediag import Problem
from sparsediag.core.validation import explained_error
from sparsediag.curvature.operator import Curvature

X, Y = cases.classes((6,), (4,), 3)[0]


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * g


class Unfit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, times: int) -> Tensor:
        return x * times

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


class Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2


def overwritten(z: Tensor) -> Tensor:
    y = z.exp()
    squares = y.square()
    y += 1
    return squares


def without_gradient(z: Tensor) -> Tensor:
    with torch.no_grad():
        return z.exp()


def in_inference_mode(z: Tensor) -> Tensor:
    with torch.inference_mode():
        scale = torch.ones(3).double()
    return z * scale


def mean(z: Any, _: Tensor) -> Tensor:
    return z.double().square().mean()


NO_GRADIENT: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "detach": (lambda z: z.detach(), "outputs do not depend"),
    "no_grad": (without_gradient, "outputs do not depend"),
    "item": (lambda z: torch.tensor(z.sum().item()), "outputs do not depend"),
    "classes": (lambda z: z.argmax(1), r"outputs do not depend .*int64"),
    "comparison": (lambda z: z > 0, r"outputs do not depend .*bool"),
    "numpy": (lambda z: torch.from_numpy(np.exp(z.detach().numpy())), "outputs do not depend"),
    "numpy on grad": (lambda z: torch.from_numpy(z.numpy() * 2), "computed by numpy"),
    "no derivative": (lambda z: torch.igamma(z.abs(), z.abs()), "no derivative of igamma"),
    "none in place": (lambda z: z.exp().asinh_(), "no derivative of inplace version of asinh"),
    "in place": (overwritten, "in-place operation .* output of Add"),
    "unfit backward": (lambda z: Unfit.apply(z, 2), "autograd.Function has no backward"),
    "no backward": (lambda z: Forward.apply(z), "autograd.Function has no backward"),
    "inference": (in_inference_mode, "inference_mode"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_GRADIENT)
def test_a_net_without_a_gradient_is_refused_by_its_cause(name: str) -> None:
    function, cause = NO_GRADIENT[name]
    net = cases._net(lambda: cases.Net(lambda n, x: function(n.fc(x)), fc=nn.Linear(4, 3)))
    with pytest.raises(ValueError, match=f"^the loss cannot be differentiated: .*{cause}") as e:
        Problem(net, [(X, Y)], loss=mean)
    assert "\n" not in str(e.value)


LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "wrong answers": (lambda z, y: (z.argmax(1) != y).double().mean(), "the loss does not depend"),
    "a count": (lambda z, y: (z.argmax(1) != y).sum(), r"the loss does not depend .*int64"),
    "data": (lambda z, y: F.cross_entropy(z.data, y), "the loss does not depend"),
    "complex": (lambda z, y: z.sum() * 1j, "a complex number; need one number"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_without_a_gradient_is_refused_by_its_cause(name: str) -> None:
    loss, cause = LOSSES[name]
    with pytest.raises(ValueError, match=cause):
        Problem(nn.Linear(4, 3).double(), [(X, Y)], loss=loss)


NO_SECOND: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "once": (lambda z, y: F.cross_entropy(Once.apply(z), y), "@once_differentiable"),
    "named": (F.multi_margin_loss, "no second derivative of multi_margin_loss"),
    "other": (
        lambda z, y: F.multilabel_margin_loss(z, torch.zeros(6, 3).long()),
        "no second derivative of multilabel_margin_loss",
    ),
}


@pytest.mark.parametrize("name", NO_SECOND)
def test_what_has_no_second_derivative_is_named(name: str) -> None:
    loss, cause = NO_SECOND[name]
    problem = Problem(nn.Linear(4, 3).double(), [(X, Y)], loss=loss)
    w, step = problem.weights, 1e-6
    v = torch.ones_like(w)
    slope = (problem.value(w + step * v) - problem.value(w - step * v)) / (2 * step)
    assert float(problem.gradient() @ v) == pytest.approx(slope, abs=1e-8)
    for product in (problem.hvp, lambda v: Curvature(problem, mode="retained")(v)):
        with pytest.raises(ValueError, match=f"cannot be differentiated twice: .*{cause}"):
            product(v)


def test_a_later_batch_that_fails_is_named() -> None:
    net = nn.Linear(4, 3).double()
    for x, y, part in ((X[:, :3], Y, "net"), (X, Y + 9, "loss")):
        with pytest.raises(ValueError, match=f"^the {part} failed on .* of batch 1: .*Error"):
            Problem(net, [(X, Y), (x, y)])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: not enough memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_a_lack_of_memory_is_no_fault_of_the_loss(error: Exception) -> None:
    assert isinstance(explained_error(error, "the loss failed"), torch.OutOfMemoryError)


def test_a_gradient_that_does_not_fit_is_not_needed_to_make_a_problem() -> None:
    full = [True]

    class Large(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.weight.requires_grad and full and full.pop():
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    net = Large(4, 3).double()
    expected = F.cross_entropy(F.linear(X, net.weight, net.bias), Y).item()
    assert Problem(net, [(X, Y)]).value() == pytest.approx(expected, rel=1e-14)
