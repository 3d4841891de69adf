"""One product with the Hessian over one gradient; chunks, TF32, and the error against float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

import sparsediag as sd
from tests.bench.curvature import double, gradients
from tests.bench.timing import memory, seconds
from tests.gpu import nets
from tests.gpu.precision import tf32
from tests.gpu.settings import Measurements, Row, Settings, check


def measurements(settings: Settings) -> Measurements:
    images = settings.size(1024, 8)
    for net in nets.names(settings):

        @cache
        def problem(net: str = net) -> sd.Problem:
            return nets.problem(settings, net, images=images, batch=images)

        @cache
        def fastest(problem: Callable[[], sd.Problem] = problem) -> tuple[float, str]:
            sizes = [n for n in settings.size((128, 512, 1024), (8,)) if n <= images]
            took = gradients(problem(), sizes)
            best = min(took, key=took.__getitem__)
            return took[best], best

        label = f"{net}, {images} images"
        yield f"{label}: gradient", lambda fastest=fastest: gradient(fastest)
        for mode in ("tape", "retained"):
            yield (
                f"{label}: product, {mode}",
                lambda mode=mode, p=problem, f=fastest: product(p(), mode, f()[0]),
            )
        for name in ("float32", "TF32"):
            yield (
                f"{label}: product in {name} while TF32 is on",
                lambda name=name, p=problem: under_tf32(p(), settings, loose=name == "TF32"),
            )
        for chunk in settings.size((128, 256, 512, 1024), (4, 8)):
            yield (
                f"{label}: product, {chunk} at a time",
                lambda chunk=chunk, p=problem: chunked(p(), chunk),
            )
        yield (
            f"{label}: product over a compiled gradient",
            lambda p=problem: over_compiled(p(), settings),
        )


def gradient(fastest: Callable[[], tuple[float, str]]) -> Row:
    """Return the time of the fastest plain gradient in float32, over layouts and chunks."""
    took, way = fastest()
    return {"ms": 1e3 * took, "way": way}


def product(problem: sd.Problem, mode: str, gradient: float) -> Row:
    v = _direction(problem)
    hessian = sd.Curvature(problem, mode=mode)
    took = seconds(lambda: hessian(v))
    held = hessian.nbytes / 2**20
    needed = memory(lambda: hessian(v), problem.device)
    error = _error(hessian(v), problem)
    row = {"ms": 1e3 * took, "gradients": took / gradient, "error": error}
    return check(row | {"held MB": held, "more MB": needed}, within_1e_3=error <= 1e-3)


def under_tf32(problem: sd.Problem, settings: Settings, *, loose: bool) -> Row:
    """Compute a product while the caller has TF32 on; `loose` lets the product use TF32 too."""
    settings.needs_cuda("TF32")
    v, used = _direction(problem), problem.replace()
    if loose:
        vars(used)["evaluation_mode"] = lambda: _evaluating(used.net)
    with tf32():
        hessian = sd.Curvature(used, mode="tape")
        took, error = seconds(lambda: hessian(v)), _error(hessian(v), problem)
    row = {"ms": 1e3 * took, "error": error}
    return row if loose else check(row, within_1e_3=error <= 1e-3)


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    net.eval()
    yield


def chunked(problem: sd.Problem, chunk: int) -> Row:
    v = _direction(problem)
    hessian = sd.Curvature(problem, chunk=chunk)
    return {"ms": 1e3 * seconds(lambda: hessian(v)), "held MB": hessian.nbytes / 2**20}


def over_compiled(problem: sd.Problem, settings: Settings) -> Row:
    """Compare a product with a gradient through `torch.compile`; compiling is not timed."""
    net = copy.deepcopy(problem.net).eval()
    (x, y) = problem.batches[0]
    if settings.cuda:
        net = net.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    forward, weights = torch.compile(net, backend=settings.compiler), list(net.parameters())
    with tf32(False):
        one = seconds(lambda: torch.autograd.grad(problem.loss(forward(x), y), weights))
    v, hessian = _direction(problem), sd.Curvature(problem)
    took = seconds(lambda: hessian(v))
    return {"ms": 1e3 * one, "product ms": 1e3 * took, "compiled gradients": took / one}


def _direction(problem: sd.Problem) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(problem.size, generator=draw).to(problem.device)


@cache
def _exact(problem: sd.Problem) -> Tensor:
    """Return the product with that direction in float64, 128 images at a time."""
    (x, y) = problem.batches[0]
    parts = list(zip(x.split(128), y.split(128), strict=True))
    return double(problem.replace(batches=parts)).hvp(_direction(problem).double())


def _error(came: Tensor, problem: sd.Problem) -> float:
    exact = _exact(problem)
    return float((came.double() - exact).norm() / exact.norm())
