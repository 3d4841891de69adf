"""Losses that are more than a mean over samples of outputs and targets.

Expected values are plain PyTorch on the caller's own net, in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Problem, landscape
from sparsediag.curvature.operator import Curvature
from sparsediag.diagnostics.gradflow import gradflow
from tests import cases

X, Y = cases.classes((9,), (4,), 3)[0]
Loss = Callable[[Any, Any], Tensor]


def plain() -> nn.Module:
    return cases._net(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))


def derivatives(net: nn.Module, loss: Loss, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of all samples at once, its gradient and its Hessian times `v`."""
    weights = [p for p in net.parameters() if p.requires_grad]
    value = loss(net(X), Y)
    parts = torch.autograd.grad(value, weights, create_graph=True)
    gradient = torch.cat([g.flatten() for g in parts])
    product = torch.autograd.grad(gradient @ v, weights)
    return value, gradient.detach(), torch.cat([h.flatten() for h in product])


def vector(size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(3)).double()


def close(came: Tensor, expected: Tensor, *, rtol: float = 1e-12) -> None:
    assert (came - expected).norm() <= rtol * expected.norm()


# losses that read the weights


def weight_decay(net: nn.Module) -> Loss:
    return lambda z, y: F.cross_entropy(z, y) + sum(p.square().sum() for p in net.parameters())


def nuclear_norm(net: nn.Module) -> Loss:
    return lambda z, y: F.cross_entropy(z, y) + torch.linalg.svdvals(net[0].weight).sum()


def gradient_penalty(net: nn.Module) -> Loss:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            x = torch.linspace(-1, 1, 8).double().view(2, 4).requires_grad_()
            (slope,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        return F.cross_entropy(z, y) + slope.square().mean()

    return loss


def consistency(net: nn.Module) -> Loss:
    return lambda z, y: F.cross_entropy(z, y) + net(X[:2] + 0.1).square().mean()


class Regularised(nn.Module):
    """A loss that holds the net as its own submodule."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z, y) * (1 + self.net[2].weight.pow(4).sum())


READERS: list[Callable[[nn.Module], Loss]] = [
    weight_decay,
    nuclear_norm,
    gradient_penalty,
    consistency,
    Regularised,
]


@pytest.mark.parametrize("counts", [(9,), (4, 5)])
@pytest.mark.parametrize("make", READERS)
def test_a_loss_that_reads_the_weights_is_differentiated(
    make: Callable[[nn.Module], Loss], counts: tuple[int, ...]
) -> None:
    net = plain()
    loss, before = make(net), copy.deepcopy(net.state_dict())
    problem = Problem(net, list(zip(X.split(counts), Y.split(counts), strict=True)), loss=loss)
    v = vector(problem.size)
    value, gradient, product = derivatives(net, loss, v)
    assert problem.reads_weights
    assert problem.value() == pytest.approx(value.item(), rel=1e-12)
    close(problem.gradient(), gradient)
    close(problem.hvp(v), product)
    close(Curvature(problem)(v), product)
    flow = torch.tensor(gradflow(problem).flow)
    close(flow, torch.stack([problem.split(gradient)[n].norm() for n in ("0.weight", "2.weight")]))
    moved = _moved(net, v)
    expected = make(moved)(moved(X), Y).item()
    assert problem.value(problem.weights + v) == pytest.approx(expected, rel=1e-12)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


@pytest.mark.parametrize("mode", ["tape", "retained"])
def test_both_engines_follow_a_weight_decay_under_a_mask(mode: Any) -> None:
    net = plain()
    mask = cases.coins(net, 0.5)
    problem = Problem(net, [(X, Y)], loss=weight_decay(net), mask=mask)
    v = vector(problem.size)
    decay = Curvature(problem, mode=mode)(v) - Curvature(
        Problem(net, [(X, Y)], mask=mask), mode=mode
    )(v)
    close(decay, 2 * v)
    alive = problem.weights.square().sum()
    without = problem.view(loss=F.cross_entropy).value()
    assert problem.value() - without == pytest.approx(alive.item(), rel=1e-12)


def test_a_landscape_follows_a_weight_decay() -> None:
    net = plain()
    problem = Problem(net, [(X[:4], Y[:4]), (X[4:], Y[4:])], loss=weight_decay(net))
    seen = landscape(problem, points=3)
    without = landscape(problem.view(loss=F.cross_entropy), points=3)
    at = problem.weights.square().sum()
    assert seen.centre == pytest.approx(without.centre + float(at), rel=1e-12)
    assert (abs(seen.loss - without.loss - float(at)) > 1e-3).sum() > 4  # it moves with the weights


def test_other_weights_and_detached_reads_are_constants() -> None:
    net, teacher = plain(), plain()
    temperature = torch.tensor(2.0, requires_grad=True)
    fixed: list[Loss] = [
        lambda z, y: F.cross_entropy(z / temperature, y),
        lambda z, y: F.cross_entropy(z, y) + F.mse_loss(z, teacher(X)),
        lambda z, y: F.cross_entropy(z, y) + net[0].weight.data.square().sum(),
    ]
    for loss in fixed:
        problem = Problem(net, [(X, Y)], loss=loss)
        v = vector(problem.size)
        _, gradient, product = derivatives(net, loss, v)
        assert not problem.reads_weights
        close(problem.gradient(), gradient)
        close(Curvature(problem)(v), product)
        moved = loss(_moved(net, v)(X), Y).item()
        assert problem.value(problem.weights + v) == pytest.approx(moved, rel=1e-12)


def _moved(net: nn.Module, v: Tensor) -> nn.Module:
    moved = copy.deepcopy(net)
    flat = torch.nn.utils.parameters_to_vector(net.parameters())
    torch.nn.utils.vector_to_parameters(flat + v, moved.parameters())
    return moved


def test_a_loss_that_holds_the_parameters_themselves_is_refused() -> None:
    net = plain()
    held, optimiser = net[0].weight, torch.optim.SGD(net.parameters(), 0.1)
    for loss in (
        lambda z, y: F.cross_entropy(z, y) + held.square().sum(),
        lambda z, y: F.cross_entropy(z, y) + optimiser.param_groups[0]["params"][0].norm(),
    ):
        with pytest.raises(ValueError, match=r"'0\.weight'.*net\.parameters\(\)"):
            Problem(net, [(X, Y)], loss=loss)


def test_gauss_newton_of_a_loss_that_reads_the_weights_is_refused() -> None:
    net = plain()
    problem = Problem(net, [(X, Y)], loss=weight_decay(net))
    with pytest.raises(ValueError, match=r"weight decay.*matrix='hessian'"):
        Curvature(problem, matrix="gauss-newton")
