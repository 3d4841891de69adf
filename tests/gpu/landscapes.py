"""Points of a landscape a second, against the bare forward pass and loss-landscapes."""

from __future__ import annotations

from functools import cache, partial
from importlib.util import find_spec

import numpy as np

import sparsediag as sd
from sparsediag.surfaces.evaluate import LossEvaluator
from tests.bench.landscape import floors, loss_landscapes
from tests.bench.timing import seconds
from tests.gpu import nets, sets
from tests.gpu.precision import tf32
from tests.gpu.settings import Measurements, Row, Settings, Skip

GRID = 51 * 51


def measurements(settings: Settings) -> Measurements:
    images = settings.size(10_000, 32)
    for net in nets.names(settings):

        @cache
        def problem(net: str = net) -> sd.Problem:
            kept = nets.checkpoint(settings, net, 0.1)
            named = sets.pixels(settings.size(10_240, 64))
            here = {
                "images": images,
                "batch": settings.size(1000, 32),
                "device": str(settings.device),
            }
            return kept.problem(data=named, **here)

        label = f"{net}, {images} images"
        yield f"{label}: float32", lambda p=problem: points(p(), "float32")
        yield f"{label}: bare forward pass", lambda p=problem: bare(p(), settings)
        yield f"{label}: bfloat16", lambda p=problem: points(p(), "bfloat16")
        yield f"{label}: loss-landscapes", lambda p=problem: theirs(p())


def points(problem: sd.Problem, precision: str) -> Row:
    sweep, point = LossEvaluator(sd.plane(problem), precision=precision), np.array([0.1, 0.2])
    return _row(seconds(partial(sweep, point), 3))


def bare(problem: sd.Problem, settings: Settings) -> Row:
    """Time the fastest of some layouts and chunks, in full float32."""
    chunks = settings.size((512, 2048, 10_000), (32,))
    with tf32(False):
        took = {way: seconds(work, 3) for way, work in floors(problem, chunks).items()}
    best = min(took, key=took.__getitem__)
    return _row(took[best]) | {"way": best}


def theirs(problem: sd.Problem) -> Row:
    if not find_spec("loss_landscapes"):
        raise Skip("loss-landscapes is not installed")
    return _row(loss_landscapes(problem))


def _row(took: float) -> Row:
    return {"points/s": 1 / took, "s for 51 x 51": GRID * took}
