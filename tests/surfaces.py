"""Landscapes whose values are known, for what judges, compares, draws and writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sparsediag import Landscape, Problem
from sparsediag.surfaces.directions import grid_axis


def exploding() -> Problem:
    """Two layers in float32, whose loss overflows far away."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    return Problem(net, [(torch.ones(2, 2), torch.ones(2, 2))], loss=F.mse_loss)


def holding(loss: np.ndarray, axes: np.ndarray, **fields: Any) -> Landscape:
    """The landscape that holds these losses."""
    dims = len(axes)
    known: dict[str, Any] = {
        "loss": loss,
        "accuracy": np.full(loss.shape, 0.5),
        "status": np.where(np.isfinite(loss), 1, 2).astype(np.uint8),
        "axes": axes,
        "labels": [f"random {i}" for i in range(dims)],
        "unit": "filter norms",
        "centre": 1.0,
        "gram": np.eye(dims),
        "lengths": np.ones(dims),
        "curvature": np.zeros(dims),
        "source": {},
    }
    return Landscape(**(known | fields))


def surface(
    function: Callable[..., np.ndarray],
    *,
    points: int = 21,
    span: float = 1.0,
    middle: Sequence[float] = (0, 0),
    **fields: Any,
) -> Landscape:
    """`function(a, b)` on a grid around `middle`, or `function(a)` where that is one number."""
    axes = np.stack([m + grid_axis(points, span) for m in middle])
    centre = float(function(*np.zeros(len(axes))))
    loss = function(*np.meshgrid(*axes, indexing="ij"))
    return holding(loss, axes, **({"centre": centre} | fields))


def bowl(curvature: float, *, dims: int = 2, **fields: Any) -> Landscape:
    """1 + curvature / 2 times the squared distance."""

    def loss(*place: Any) -> Any:
        return 1 + curvature / 2 * sum(x**2 for x in place)

    about = {"middle": (0,) * dims, "curvature": np.full(dims, curvature)}
    return surface(loss, **(about | fields))


def passed(names: Sequence[str], places: Any, losses: Any, away: Any = 0) -> dict[str, Any]:
    """The fields of a landscape that goes by nets."""
    at = np.array(places, float)
    return {
        "stops": list(names),
        "places": at,
        "losses": np.array(losses, float),
        "heights": np.array(losses, float),
        "away": np.zeros(len(at)) + away,
    }


AXIS = np.linspace(-1, 1, 9)
LINES = holding(2 + np.outer([0, 1, 5], AXIS**2), AXIS[None], labels=["3 random lines"])
BETWEEN = surface(
    lambda a: 1 + a * (1 - a),
    middle=(0.5,),
    labels=["towards b"],
    unit="way to the other net",
    **passed(["a", "b"], [[0], [1]], [1.25, 0.75]),
)
RUN = surface(
    lambda a, b: 1 + a**2 + 3 * b**2,
    span=2.0,
    labels=["component 1 (64%)", "component 2 (36%)"],
    unit="distance",
    **passed(
        [f"epoch-{i:03}" for i in range(5)],
        [[1.5, -1], [1, 0.5], [0.5, 0.7], [0.2, 0.1], [0, 0]],
        [6.0, 3.0, 2.0, 0.0, 1.0],
        [0.4, 0.3, 0.2, 0.1, 0],
    ),
)
TRIO = surface(
    lambda a, b: 1 + a**2 + b,
    middle=(0.5, 0.5),
    **passed(["a", "b", "c"], [[0, 0], [1, 0], [0, 1]], [1, 2, 2], [0, 0.2, 0]),
)
KINDS = {"line": bowl(3.0, dims=1), "plane": bowl(3.0), "lines": LINES}
KINDS |= {"between": BETWEEN, "run": RUN, "trio": TRIO}


def overflown(found: Landscape) -> Landscape:
    loss = found.loss.copy()
    loss.flat[:3], loss.flat[-1] = np.inf, np.nan
    return holding(loss, found.axes, **{k: getattr(found, k) for k in ("labels", "centre")})
