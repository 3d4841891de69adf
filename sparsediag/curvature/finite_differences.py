"""Finite differences: a reference for gradients and Hessian products that is not autograd.

Autograd cannot check itself. A surrogate or straight-through gradient is not the derivative of the
loss, and the backward of a custom function that reads a stored value is right once but wrong when
it is differentiated again. Central differences see both:

    g.v = (L(w + hv) - L(w - hv)) / 2h + O(h^2),    Hv = (g(w + hv) - g(w - hv)) / 2h + O(h^2)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sparsediag.core.batch_loss import Matrix
from sparsediag.core.batches import Batch, select_samples
from sparsediag.core.problem import Problem
from sparsediag.core.rng import stream
from sparsediag.curvature.chunks import few_samples

# steps relative to |w|: first the one that crosses few kinks of ReLUs and has little rounding
STEPS = {torch.float64: (1e-7, 1e-8, 1e-6, 1e-5), torch.float32: (1e-2, 3e-3, 3e-2, 1e-3)}
MOVE = {torch.float64: 3e-5, torch.float32: 3e-2}  # away from kinks, relative to |w|
# relative difference below which two derivatives agree
AGREE = {torch.float64: 1e-5, torch.float32: 2e-2}
SAMPLES = 2  # of a loss whose samples are independent
SURE = 10  # a derivative is wrong if it is off by this many times the error of the differences
ROUNDING = 100  # rounding errors of a loss or a gradient, in units of the precision


@dataclass(frozen=True)
class Comparison:
    """A derivative by autograd against finite differences.

    Attributes:
        error: Norm of the difference, relative to the larger of the two.
        agrees: True or False, or None if the error of the differences is too large to tell.
    """

    error: float
    agrees: bool | None


class DifferenceCheck:
    """The derivatives of a few samples' loss, compared with finite differences.

    The samples are evaluated in float64 if the network and the loss allow it. The direction is
    half random, half that of the gradient, whose slope does not shrink with the number of weights.
    The weights are moved a little along it: in new nets and where images are padded, the inputs of
    ReLUs are exactly 0, and at such a kink autograd and differences may differ.

    Args:
        problem: The loss.

    >>> from torch import nn
    >>> problem = Problem(nn.Linear(2, 1), [(torch.eye(2), torch.ones(2, 1))], loss=nn.MSELoss())
    >>> DifferenceCheck(problem).slope.agrees
    True
    """

    def __init__(self, problem: Problem) -> None:
        samples = few_samples(problem)
        if problem.separable:
            samples = select_samples(samples, slice(SAMPLES))
        problem, gradient = _in_float64(problem, samples)
        noise = torch.randn(len(gradient), generator=stream("finite differences")).to(gradient)
        self.direction = normalize(gradient, dim=0) + normalize(noise, dim=0)
        w, move = problem.weights, MOVE[problem.weights.dtype]
        moved = w + move * _unit_step(w, self.direction) * self.direction
        self.problem = problem.on(problem.batches, weights=moved)
        self.gradient = self.problem.gradient()

    @cached_property
    def slope(self) -> Comparison:
        """Compare the gradient along the direction with differences of the loss."""
        slope = (self.gradient @ self.direction)[None]

        def loss(weights: Tensor) -> Tensor:
            return slope.new_tensor([self.problem.value(weights)])

        centre = loss(self.problem.weights)
        return self._compare(slope, self._differences(self.direction, loss, centre))

    def product(
        self,
        product: Callable[[Problem, Tensor, Matrix], Tensor],
        matrix: Matrix = "hessian",
        direction: Tensor | None = None,
    ) -> Comparison:
        """Compare a matrix-vector product with differences of gradients.

        For the Gauss-Newton matrix the comparison is of v.Gv with the second difference of the loss
        along the change of the outputs. The Fisher matrix has no second derivative: nothing to
        compare.
        """
        v = self.direction if direction is None else direction.to(self.direction)
        if matrix == "fisher":
            return Comparison(0.0, None)
        try:
            claimed = product(self.problem, v, matrix)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a mode may do other operations in float64, as for recurrent layers
            return Comparison(float("inf"), None)
        if matrix == "hessian":
            differences = self._differences(v, self.problem.gradient, self.gradient)
            return self._compare(claimed, differences)
        return self._compare((v @ claimed)[None], self._gauss_newton(v))

    def slope_doubts(self) -> list[str]:
        """Return a line that says that the gradient is wrong, if it is."""
        if self.slope.agrees is not False:
            return []
        return [
            f"the gradient is off by {self.slope.error:.0%} from differences of the loss: "
            "surrogate or straight-through gradients, or a detached part? All derivatives are "
            "those of autograd, not those of the loss"
        ]

    def product_doubts(
        self,
        product: Callable[[Problem, Tensor, Matrix], Tensor],
        matrix: Matrix = "hessian",
        direction: Tensor | None = None,
    ) -> list[str]:
        """Return a line that says that a product is wrong, if it is; see `product`."""
        comparison = self.product(product, matrix, direction)
        if comparison.agrees is not False:
            return []
        return [
            f"a product is off by {comparison.error:.0%} from differences of gradients: a custom "
            "autograd.Function whose backward is not differentiable? Use plain operations there"
        ]

    def _compare(self, claimed: Tensor, differences: Iterator[tuple[Tensor, float]]) -> Comparison:
        """Compare with differences at several steps, until they agree with the claim."""
        close = AGREE[self.problem.weights.dtype]
        best, last, smallest = Comparison(float("inf"), None), None, float("inf")
        for difference, rounding in differences:
            scale = max(float(difference.norm()), float(claimed.norm()))
            if not scale:  # also if no weight is live
                return Comparison(0.0, True)
            error = float((claimed - difference).norm()) / scale
            if error <= close:
                return Comparison(error, True)
            if last is not None:
                uncertainty = (float((difference - last).norm()) + rounding) / scale
                if uncertainty < smallest:
                    wrong = error > SURE * max(uncertainty, close)
                    smallest, best = uncertainty, Comparison(error, False if wrong else None)
            last = difference
        return best

    def _differences(
        self, direction: Tensor, function: Callable[[Tensor], Tensor], centre: Tensor
    ) -> Iterator[tuple[Tensor, float]]:
        """Yield central differences along a direction and their rounding error, step by step.

        Where the function is 0, its rounding is that of the terms that cancel in it, at least the
        square root of the precision of its second difference.
        """
        weights = self.problem.weights
        eps = torch.finfo(weights.dtype).eps
        for step in STEPS[weights.dtype]:
            h = step * _unit_step(weights, direction)
            above, below = function(weights + h * direction), function(weights - h * direction)
            bend = float((above + below - 2 * centre).norm())
            rounding = ROUNDING * eps * float(above.norm()) + eps**0.5 * bend
            yield (above - below) / (2 * h), rounding / (2 * h)

    def _gauss_newton(self, direction: Tensor) -> Iterator[tuple[Tensor, float]]:
        """Yield v.Gv, the second difference of the loss along the change of the outputs."""
        (outputs,), (_, targets) = self.problem.outputs(), self.problem.batches[0]
        eps = torch.finfo(outputs.dtype).eps
        outputs_at = lambda w: self.problem.outputs(w)[0]  # noqa: E731
        for tangent, _ in self._differences(direction, outputs_at, outputs):
            h = 1e-3 * max(float(outputs.norm()), 1.0) / (float(tangent.norm()) or 1.0)
            with torch.no_grad():
                points = (outputs + k * h * tangent for k in (1, 0, -1))
                above, centre, below = (self.problem.reduce_loss(z, targets) for z in points)
            rounding = ROUNDING * eps * float(abs(centre)) / h**2
            yield ((above - 2 * centre + below) / h**2)[None], rounding


def _unit_step(weights: Tensor, direction: Tensor) -> float:
    """Return the factor that makes a direction as long as the weights."""
    size = max(float(weights.norm()), 1e-3 * len(weights) ** 0.5) or 1.0
    return size / (float(direction.norm()) or 1.0)


def _in_float64(problem: Problem, batch: Batch) -> tuple[Problem, Tensor]:
    """Return the loss of one batch and its gradient, in float64 if net and loss allow it."""
    batch_problem = problem.on([batch])
    try:
        double = problem.on([batch], dtype=torch.float64)
        value, gradient = double.value(), double.gradient()
        if (
            abs(value - batch_problem.value()) <= 1e-2 * abs(value) + 1e-6
            and gradient.isfinite().all()
        ):
            return double, gradient
    except torch.OutOfMemoryError:
        raise
    except Exception:
        pass  # it has tensors of a fixed precision
    return batch_problem, batch_problem.gradient()
