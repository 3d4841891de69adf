"""Finite differences: wrong derivatives are found, right ones are not doubted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cases
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Curvature, Problem, blocks, gradflow, perturbation, spectrum, trace
from sparsediag.curvature.finite_differences import DifferenceCheck


class StoredCube(torch.autograd.Function):
    """x^3, with a right gradient whose graph does not know the stored slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.slope = 3 * x * x
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * ctx.slope


class StoredSigmoid(torch.autograd.Function):
    """A sigmoid whose backward reads the output from where autograd does not see it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.y = x.sigmoid().detach()
        return x.sigmoid()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * ctx.y * (1 - ctx.y)


class OnceSquare(torch.autograd.Function):
    """x^2 that says itself that it can be differentiated only once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * g * ctx.saved_tensors[0]


class Spike(torch.autograd.Function):
    """A step with a smooth surrogate gradient, as in spiking networks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g / (1 + 9 * ctx.saved_tensors[0].square())


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _problem(function: Callable[[Tensor], Tensor], *, conv: bool = False) -> Problem:
    if conv:
        make = lambda: nn.Sequential(  # noqa: E731
            nn.Conv2d(1, 2, 3), Apply(function), nn.Flatten(), nn.Linear(8, 3)
        )
        return Problem(cases._net(make), cases.classes((7, 4), (1, 4, 4), 3))
    make = lambda: nn.Sequential(nn.Linear(4, 5), Apply(function), nn.Linear(5, 3))  # noqa: E731
    return Problem(cases._net(make), cases.classes((7, 4), (4,), 3))


def _rounded(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()  # straight through


def _reversed(x: Tensor) -> Tensor:
    y = x.tanh()
    if y.requires_grad:
        y.register_hook(lambda g: -g)  # domain-adversarial training
    return y


def _top_half(x: Tensor) -> Tensor:
    kept = x.abs() >= x.abs().median()
    return x * (kept.to(x) + x - x.detach())  # scores with a straight-through gradient


WRONG_SECOND = {
    "stored cube": (StoredCube.apply, lambda x: x**3),
    "stored sigmoid": (StoredSigmoid.apply, torch.sigmoid),
}
WRONG_FIRST = {
    "spike": Spike.apply,
    "straight through": _rounded,
    "detached factor": lambda x: x * x.detach(),
    "reversed gradient": _reversed,
    "top-k scores": _top_half,
}
RIGHT = {
    "relu": torch.relu,
    "hard": F.hardswish,
    "abs": torch.abs,
    "gelu": F.gelu,
    "flat": torch.zeros_like,
    "large": lambda x: 1e3 * x.square(),
    "float32 only": lambda x: x.float().tanh().to(x.dtype),
}


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("name", WRONG_SECOND)
def test_a_wrong_double_backward_is_found_and_the_tape_used(name: str, conv: bool) -> None:
    custom, plain = WRONG_SECOND[name]
    problem, expected = _problem(custom, conv=conv), _problem(plain, conv=conv)
    hessian = cases.dense_hessian(expected)
    largest = float(torch.linalg.eigvalsh(hessian)[-1])
    found = spectrum(problem, top=1, tol=1e-6)
    assert found.eigenvalues[0] == pytest.approx(largest, rel=1e-9)
    assert (found.mode, found.converged) == ("tape", False)
    assert any("'tape' agrees" in line for line in found.doubts)
    v = torch.randn(problem.size, dtype=torch.float64)
    torch.testing.assert_close(Curvature(problem)(v), hessian @ v)
    torch.testing.assert_close(Curvature(problem, mode="tape")(v), hessian @ v)
    (doubt,) = Curvature(problem, mode="retained").doubts
    assert "differences of gradients" in doubt


@pytest.mark.parametrize("conv", [False, True])
def test_where_double_backward_refuses_the_tape_is_used(conv: bool) -> None:
    problem = _problem(OnceSquare.apply, conv=conv)
    hessian = cases.dense_hessian(_problem(torch.square, conv=conv))
    found = spectrum(problem, top=1, tol=1e-6)
    largest = float(torch.linalg.eigvalsh(hessian)[-1])
    assert found.eigenvalues[0] == pytest.approx(largest, rel=1e-9)
    assert (found.mode, found.converged) == ("tape", True)
    with pytest.raises(ValueError, match="once_differentiable"):
        Curvature(problem, mode="retained")


def test_a_stored_slope_in_the_loss_is_found_by_the_gauss_newton_matrix() -> None:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        return StoredCube.apply(z - F.one_hot(y, 3)).mean()

    problem = _problem(torch.tanh).replace(loss=loss)
    expected = problem.replace(loss=lambda z, y: (z - F.one_hot(y, 3)).pow(3).mean())
    v = torch.ones(problem.size, dtype=torch.float64)
    curvature = Curvature(problem, matrix="gauss-newton")
    assert curvature.doubts
    torch.testing.assert_close(curvature(v), Curvature(expected, matrix="gauss-newton")(v))
    assert not Curvature(expected, matrix="gauss-newton").doubts


@pytest.mark.parametrize("name", WRONG_FIRST)
def test_a_gradient_that_is_not_the_slope_of_the_loss_is_doubted_everywhere(name: str) -> None:
    problem = _problem(WRONG_FIRST[name])
    results = [
        spectrum(problem, top=1, max_matvecs=20),
        trace(problem, max_matvecs=30),
        trace(problem, solver="pyhessian", max_matvecs=30),
        blocks(problem, max_matvecs=20),
        gradflow(problem),
        perturbation(problem, points=3),
    ]
    for result in results:
        kind = type(result).__name__
        assert any("differences of the loss" in line for line in result.findings), kind
        assert any("differences of the loss" in line for line in result.remarks()), kind
        assert not getattr(result, "converged", False) or kind == "Blocks"
    assert not results[3].converged[0]  # of the layer before it


@pytest.mark.parametrize("name", RIGHT)
def test_right_derivatives_are_not_doubted(name: str) -> None:
    problem = _problem(RIGHT[name])
    assert not Curvature(problem).doubts
    assert DifferenceCheck(problem).slope.agrees is not False


@pytest.mark.parametrize("name", cases.CASES)
def test_the_cases_are_not_doubted_in_either_precision(name: str) -> None:
    problem = cases.CASES[name]()
    check = DifferenceCheck(problem)
    assert not check.slope_doubts()
    assert not Curvature(problem).doubts


def _largest_of_two(x: Tensor) -> Tensor:
    return torch.maximum(x, x.roll(1, 1))


def _at_kinks(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Problem:
    """A new net on images with black borders: the inputs of its ReLUs are 0 there."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), Apply(function), nn.Flatten(), nn.Linear(144, 3))
    g = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=g) * 0.2 * (p.dim() > 1)
    x = F.pad(torch.rand(16, 1, 5, 8, generator=g), (0, 0, 3, 0))
    return Problem(net.to(dtype), [(x.to(dtype), torch.arange(16) % 3)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [torch.relu, torch.abs, _largest_of_two])
def test_a_kink_at_the_weights_is_no_disagreement(
    function: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    problem = _at_kinks(function, dtype)
    assert not DifferenceCheck(problem).slope_doubts()
    assert not Curvature(problem, matrix="gauss-newton").doubts
    doubted = DifferenceCheck(_at_kinks(lambda x: _reversed(function(x)), dtype))
    assert "off by" in doubted.slope_doubts()[0]


@pytest.mark.parametrize("mode", ["auto", "retained"])
@pytest.mark.parametrize(
    "function", [lambda z: z.norm(dim=1), lambda z: z.square().pow(0.75).sum(1)]
)
def test_a_product_that_is_not_finite_is_refused(
    function: Callable[[Tensor], Tensor], mode: Any
) -> None:
    net = nn.Sequential(nn.Linear(3, 2, bias=False), Apply(function)).double()
    nn.init.zeros_(net[0].weight)
    x = torch.eye(3, dtype=torch.float64)
    problem = Problem(net, [(x, x[0])], loss=nn.MSELoss())
    with pytest.raises(ValueError, match=r"differentiated twice: .*not finite at these weights"):
        Curvature(problem, mode=mode)


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.HuberLoss()])
@pytest.mark.parametrize("seed", range(9))
def test_no_doubt_at_a_minimum(loss: Callable[..., Tensor], seed: int) -> None:
    net = nn.Linear(2, 1, bias=False).double()
    nn.init.ones_(net.weight)
    x = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    problem = Problem(net, [(x, x.sum(1, keepdim=True))], loss=loss)
    assert problem.gradient().norm() < 1e-12
    assert not Curvature(problem).doubts
    assert not Curvature(problem, matrix="gauss-newton").doubts


def test_a_direction_shows_what_a_random_one_hides() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.many = nn.Parameter(torch.ones(2000, dtype=torch.float64))
            self.one = nn.Parameter(torch.ones(1, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return x.mean() * (self.many.square().sum() + 1e-5 * StoredCube.apply(self.one).sum())

    problem = Problem(Net(), [(torch.ones(1, 1).double(), None)], loss=lambda z, _: z)
    curvature = Curvature(problem, mode="retained")
    assert not curvature.doubts
    many, one = torch.eye(problem.size, dtype=torch.float64)[[0, -1]]
    assert not curvature.check(many)
    assert "off by 100%" in curvature.check(one)[0]
