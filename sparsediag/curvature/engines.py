"""The engines of Hessian products, and the choice of one for a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.func import grad

from sparsediag.core.batch_loss import BatchLoss, Matrix
from sparsediag.core.double_backward import DoubleBackward
from sparsediag.core.rng import stream
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

        self._product: Callable[..., Any] = torch.compile(grad(slope))

    def product(self, directions: Sequence[Tensor], matrix: Matrix = "hessian") -> list[Tensor]:
        """Return the Hessian times a vector, both as a tensor for each weight."""
        if matrix != "hessian":
            raise CannotRecord("mode 'compiled' is for the Hessian only")
        return list(self._product(self.weights, tuple(directions)))


ENGINES: dict[str, Callable[[BatchLoss, Sequence[Tensor]], Any]] = {
    "tape": Tape,
    "retained": DoubleBackward,
    "compiled": Compiled,
}


def choose_mode(batch: BatchLoss, weights: Sequence[Tensor], *, mode: Mode, matrix: Matrix) -> Mode:
    """Return the mode that was asked for, or the better one for "auto"; see `Curvature`.

    Raises:
        ValueError: If the mode fails on this network, or its product differs from that of double
            backward.
        torch.OutOfMemoryError: If the memory is too short for these samples.
    """
    generator = stream("curvature probe")
    vector = [torch.randn(w.shape, generator=generator).to(w) for w in weights]
    try:
        expected = DoubleBackward(batch, weights).product(vector, matrix)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        cause = " ".join(str(error).split())[:200]
        raise ValueError(f"the network cannot be differentiated twice: {cause}") from error
    try:
        engine = ENGINES["tape" if mode == "auto" else mode](batch, weights)
        problem = _compare(engine.product(vector, matrix), expected)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        problem = " ".join(str(error).split())[:200]
    if mode == "auto":
        return "tape" if not problem and engine.convolves else "retained"
    if problem:
        raise ValueError(f"mode '{mode}' cannot do this network: {problem}; use mode='auto'")
    return mode


def _compare(product: Sequence[Tensor], expected: Sequence[Tensor]) -> str:
    """Return a message if a product differs from the expected one by more than rounding."""
    pairs = list(zip(product, expected, strict=True))
    off = sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5
    size = sum(float(b.square().sum()) for b in expected) ** 0.5
    close = off <= 10 * torch.finfo(product[0].dtype).eps ** 0.5 * size
    return "" if close else f"its product is off by {off / size if size else off:.1e}"
