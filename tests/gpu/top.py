"""The top five eigenpairs by sparsediag, PyHessian, scipy and other tools if installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import sparsediag as sd
from sparsediag.curvature.operator import Curvature
from tests.bench.contenders import CONTENDERS
from tests.bench.curvature import double, judged
from tests.bench.timing import clock, memory
from tests.gpu import nets
from tests.gpu.precision import tf32
from tests.gpu.settings import Measurements, Row, Settings, Skip

NEEDS = {
    "PyHessian, tol 1e-6": "pyhessian",
    "curvlinops, scipy eigsh": "curvlinops",
    "hessian-eigenthings, 20 steps": "hessian_eigenthings",
}
FIRST = ("sparsediag", "scipy eigsh, retained graph", "PyHessian, tol 1e-6")


def measurements(settings: Settings) -> Measurements:
    images = settings.size(512, 16)
    cells = settings.size(
        [(n, d) for d in (1.0, 0.1) for n in nets.names(settings)], [("lenet300", 0.1)]
    )
    for tools in (FIRST, [name for name in CONTENDERS if name not in FIRST]):
        for net, density in cells:

            @cache
            def problem(net: str = net, density: float = density) -> sd.Problem:
                return nets.problem(settings, net, images=images, batch=images, density=density)

            @cache
            def exact(problem: Callable[[], sd.Problem] = problem) -> Curvature:
                return Curvature(double(problem()))

            for tool in tools:
                yield (
                    f"{net}, {density:.0%}, {images} images: {tool}",
                    lambda tool=tool, p=problem, e=exact: found(tool, p(), e()),
                )


def found(tool: str, problem: sd.Problem, exact: Curvature) -> Row:
    """Time one tool from set-up to pairs on the host, in full float32, on a warm device."""
    module = NEEDS.get(tool)
    if module and not find_spec(module):
        raise Skip(f"{module} is not installed")
    problem.net.eval()
    sd.Curvature(problem)(problem.weights)  # so that nobody pays for the first launches
    pairs: list[tuple] = []
    with warnings.catch_warnings(action="ignore"), tf32(False):
        start = clock()
        needed = memory(lambda: pairs.append(CONTENDERS[tool](problem)), problem.device)
        took = clock() - start
    values, vectors, products = pairs[0]
    residual, error = judged(values, vectors, exact)
    row = {"s": took, "products": products, "MB": needed}
    return row | {"worst residual": residual, "error": error, "top": float(max(values))}
