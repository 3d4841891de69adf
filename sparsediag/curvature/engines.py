"""The engines of Hessian products, and the choice of one for a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.func import grad

from sparsediag.core.batch_loss import BatchLoss, Matrix
from sparsediag.core.double_backward import DoubleBackward
from sparsediag.core.problem import Problem
from sparsediag.core.rng import stream
from sparsediag.core.twice_differentiable import twice_differentiable
from sparsediag.core.validation import explained_error
from sparsediag.curvature.finite_differences import DifferenceCheck
from sparsediag.curvature.recorder import CannotRecord
from sparsediag.curvature.tape import Tape

Mode = Literal["auto", "tape", "retained", "compiled"]


class Engine(Protocol):
    """Products with the curvature of the loss on one batch."""

    nbytes: int
    gradient: Any

    def product(self, directions: Sequence[Tensor], matrix: Matrix) -> list[Tensor]:
        """Return the matrix times a vector, both as a tensor for each weight."""


class Compiled:
    """Double backward as one function of the weights, compiled by `torch.compile`.

    The compiler takes from seconds to minutes. (It cannot trace forward over reverse: torch 2.15
    stops with an internal error about the layout of tangents.)
    """

    nbytes = 0

    def __init__(self, batch: BatchLoss, weights: Sequence[Tensor]) -> None:
        self.weights = tuple(w.detach() for w in weights)
        gradient = grad(lambda w: batch.evaluate(w)[1])
        self.gradient = list(gradient(self.weights))

        def slope(w: tuple[Tensor, ...], v: tuple[Tensor, ...]) -> Tensor:
            pairs = zip(gradient(w), v, strict=True)
            return torch.stack([(g * d).sum() for g, d in pairs]).sum()

        self._product: Callable[..., Any] = torch.compile(grad(slope), dynamic=False)

    def product(self, directions: Sequence[Tensor], matrix: Matrix = "hessian") -> list[Tensor]:
        """Return the Hessian times a vector, both as a tensor for each weight."""
        if matrix != "hessian":
            raise CannotRecord("mode 'compiled' is for the Hessian only")
        return list(self._product(self.weights, tuple(directions)))


REFERENCE: Mode = "retained"  # double backward, which the other modes are compared with
ENGINES: dict[Mode, Callable[[BatchLoss, Sequence[Tensor]], Any]] = {
    "tape": Tape,
    "retained": DoubleBackward,
    "compiled": Compiled,
}


Choice = tuple[Mode, list[str]]
_CHOICES: WeakKeyDictionary[Problem, dict[tuple[Mode, Matrix], Choice]] = WeakKeyDictionary()


def choose_mode(
    problem: Problem, batch: BatchLoss, weights: Sequence[Tensor], *, mode: Mode, matrix: Matrix
) -> Choice:
    """Return the mode that was asked for, or the better one for "auto", and doubts about it.

    The mode's product on some samples is compared with that of double backward, and both with
    finite differences: what they agree with is used. The choice for a problem is made once.

    Raises:
        ValueError: If the mode fails on this network, or its product is wrong.
        torch.OutOfMemoryError: If the memory is too short for these samples.
    """
    choices = _CHOICES.setdefault(problem, {})
    if (mode, matrix) not in choices:
        check = DifferenceCheck(problem)
        choices[mode, matrix] = _compare_modes(check, batch, weights, mode=mode, matrix=matrix)
    return choices[mode, matrix]


def _compare_modes(
    check: DifferenceCheck,
    batch: BatchLoss,
    weights: Sequence[Tensor],
    *,
    mode: Mode,
    matrix: Matrix,
) -> Choice:
    problem = check.problem
    noise = torch.randn(problem.size, generator=stream("curvature probe")).to(problem.device)
    vector = [v.to(w) for v, w in zip(problem.split(noise).values(), weights, strict=True)]
    wanted: Mode = "tape" if mode == "auto" else mode
    products, failures, convolves = dict[Mode, Tensor](), dict[Mode, Exception](), False
    for name in dict.fromkeys((REFERENCE, wanted)):
        try:
            engine = ENGINES[name](batch, weights)
            product = problem.flatten(engine.product(vector, matrix))  # of live weights
            if not product.isfinite().all():
                raise FloatingPointError("a product is not finite at these weights: a norm of 0?")
            products[name] = product
            convolves = getattr(engine, "convolves", False)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            failures[name] = error
    if REFERENCE in failures:
        if wanted == "tape" in products and check.product(_product("tape"), matrix).agrees:
            return "tape", check.slope_doubts()
        raise explained_error(failures[REFERENCE], "the loss cannot be differentiated twice")
    if wanted in failures and mode != "auto":
        raise ValueError(_refusal(mode, " ".join(str(failures[wanted]).split())[:200]))
    difference = 0.0 if wanted in failures else _difference(products[wanted], products[REFERENCE])
    if difference:
        name, doubts = _settle(check, difference, mode=mode, matrix=matrix)
    else:
        name = wanted if wanted in products and (convolves or mode != "auto") else REFERENCE
        doubts = check.product_doubts(_product(REFERENCE), matrix)
    return name, [*check.slope_doubts(), *doubts]


def _settle(check: DifferenceCheck, difference: float, *, mode: Mode, matrix: Matrix) -> Choice:
    """Return the mode that agrees with finite differences where modes disagree, and the doubt."""
    wanted: Mode = "tape" if mode == "auto" else mode
    candidates: list[Mode] = [wanted, REFERENCE] if mode == "auto" else [mode]
    right = [m for m in candidates if check.product(_product(m), matrix).agrees]
    if not right and mode != "auto":
        raise ValueError(_refusal(mode, f"its product is off by {difference:.1e}"))
    doubt = f"the products of modes '{wanted}' and '{REFERENCE}' differ by {difference:.1e}"
    if not right:
        return REFERENCE, [f"{doubt}, and differences of gradients cannot tell which is right"]
    return right[0], [f"{doubt}; '{right[0]}' agrees with differences of gradients and is used"]


def check_direction(
    check: DifferenceCheck, direction: Tensor, *, mode: Mode, matrix: Matrix
) -> list[str]:
    """Return the doubts about a mode's product along a direction, by finite differences."""
    return check.product_doubts(_product(mode), matrix, direction)


def double_backward_doubts(problem: Problem) -> list[str]:
    """Return the doubts about the gradient and about Hessian products by double backward."""
    check = DifferenceCheck(problem)
    return [*check.slope_doubts(), *check.product_doubts(_product(REFERENCE))]


def _product(mode: Mode) -> Callable[[Problem, Tensor, Matrix], Tensor]:
    """Return the function that multiplies a vector in a mode, on the first batch of a problem."""

    def product(problem: Problem, vector: Tensor, matrix: Matrix) -> Tensor:
        weights, directions = (list(problem.split(v).values()) for v in (problem.weights, vector))
        with problem.evaluation_mode(), twice_differentiable():
            engine = ENGINES[mode](problem.batch_loss(problem.batches[0]), weights)
            return problem.flatten(engine.product(directions, matrix))

    return product


def _refusal(mode: Mode, cause: str) -> str:
    return f"mode '{mode}' cannot do this network: {cause}; use mode='auto'"


def _difference(product: Tensor, expected: Tensor) -> float:
    """Return the relative difference of two products, 0 if it is only rounding."""
    off, size = float((product - expected).norm()), float(expected.norm())
    close = off <= 10 * torch.finfo(product.dtype).eps ** 0.5 * size
    return 0.0 if close else off / size if size else off
