"""What a prompt shows of each noun: a line or a few, never its tensors."""

from __future__ import annotations

from typing import Any

import cases
import pytest
import torch

import sparsediag as sd
from sparsediag.core.short_repr import short_repr
from sparsediag.data.datasets import Data
from sparsediag.data.images import Images
from sparsediag.surfaces.interpolation import interpolate


def data() -> Data:
    pixels = torch.zeros(500, 1, 8, 8, dtype=torch.uint8)
    images = Images(pixels, torch.zeros(500, dtype=torch.long))
    values = {"train": images, "test": images, "classes": 10, "name": "letters"}
    names = Data.__dataclass_fields__
    return Data(**{name: values.get(name, (0.5,)) for name in names})


def line() -> Any:
    first, second = cases.tanh_mlp(), cases.tanh_mlp()
    with torch.no_grad():
        second.net[0].weight.add_(1)
    return interpolate([first, second.replace(net=second.net)])


NOUNS: dict[str, Any] = {
    "Data(": data,
    "Plane(problem=Problem(Sequential": lambda: sd.plane(cases.relu_cnn()),
    "Plane(": line,
    "Mask(": lambda: cases.masked_cnn().mask,
    "Problem(": cases.relu_cnn,
    "Checkpoint(": lambda: sd.Checkpoint.of(cases.relu_cnn().net, model="x", options={}),
    "LiveCoordinates(": lambda: cases.masked_cnn().live,
    "Curvature(Problem(Sequential": lambda: sd.Curvature(cases.tanh_mlp()),
}


@pytest.mark.parametrize("start", NOUNS)
def test_a_noun_is_shown_in_a_line(start: str) -> None:
    shown = repr(NOUNS[start]())
    assert shown.startswith(start)
    assert "\n" not in shown
    assert len(shown) < 700
    assert "tensor(" not in shown


def test_a_short_repr_tells_shapes_and_lengths() -> None:
    plane = sd.plane(cases.tanh_mlp())
    assert f"directions=tensor {tuple(plane.directions.shape)}" in short_repr(plane)
    assert "shapes={6 entries}" in short_repr(plane.problem.live)
