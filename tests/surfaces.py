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
