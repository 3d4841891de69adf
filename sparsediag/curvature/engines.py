"""The engines of Hessian products, and the choice of one for a network."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from sparsediag.core.batch_loss import BatchLoss, Matrix
from sparsediag.core.double_backward import DoubleBackward
from sparsediag.core.rng import stream
from sparsediag.curvature.forward_over_reverse import Compiled, Forward
from sparsediag.curvature.tape import Tape

Mode = Literal["auto", "fastest", "tape", "retained", "forward", "compiled"]


class Engine(Protocol):
    """Products with the curvature of the loss on one batch."""

    nbytes: int
    gradient: Any

    def product(self, directions: Sequence[Tensor], matrix: Matrix) -> list[Tensor]:
        """The matrix times a vector, both as a tensor for each weight."""


ENGINES: dict[str, Callable[[BatchLoss, Sequence[Tensor]], Any]] = {
    "tape": Tape,
    "retained": DoubleBackward,
    "forward": Forward,
    "compiled": Compiled,
}


def choose_mode(batch: BatchLoss, weights: Sequence[Tensor], *, mode: Mode, matrix: Matrix) -> Mode:
    """The mode that was asked for, or the best one; see `Curvature`.

    Raises:
        ValueError: If the mode fails on this net, or its product is not that of double backward.
        torch.OutOfMemoryError: If the memory is too short for these samples.
    """
    draw = stream("curvature probe")
    along = [torch.randn(w.shape, generator=draw).to(w) for w in weights]
    try:
        expected, least = _timed(DoubleBackward(batch, weights), along, matrix)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"the net cannot be differentiated twice: {why}") from error
    best: Mode = "retained"
    trials: dict[str, tuple[Mode, ...]] = {"auto": ("tape",), "fastest": ("tape", "forward")}
    for name in trials.get(mode, (mode,)):
        try:
            engine = ENGINES[name](batch, weights)
            came, seconds = _timed(engine, along, matrix)
            wrong = _unlike(came, expected)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            wrong = " ".join(str(error).split())[:200]
        if wrong and mode == name:
            raise ValueError(f"mode '{mode}' cannot do this net: {wrong}; use mode='auto'")
        if wrong or (mode == "auto" and not engine.convolves):
            continue
        if mode != "fastest" or seconds < least:
            best, least = name, seconds
    return best


def _timed(engine: Engine, along: list[Tensor], matrix: Matrix) -> tuple[list[Tensor], float]:
    """A product, and the seconds it takes; a quick one is run again, warm."""
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        product = engine.product(along, matrix)
        _wait(along[0])
        seconds = time.perf_counter() - start
        if seconds > 0.05:
            break
    return product, seconds


def _wait(like: Tensor) -> None:
    if like.device.type == "cuda":
        torch.cuda.synchronize(like.device)


def _unlike(came: Sequence[Tensor], expected: Sequence[Tensor]) -> str:
    """Return a message if a product differs from the expected one by more than rounding."""
    off = sum(float((a - b).square().sum()) for a, b in zip(came, expected, strict=True)) ** 0.5
    size = sum(float(b.square().sum()) for b in expected) ** 0.5
    close = off <= 10 * torch.finfo(came[0].dtype).eps ** 0.5 * size
    return "" if close else f"its product is off by {off / size if size else off:.1e}"
