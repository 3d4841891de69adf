"""Nets that have learned something, to measure the curvature of."""

from __future__ import annotations

import sparsediag as sd
from tests.gpu import sets
from tests.gpu.place import Place
from training.config import Run
from training.loop import fit


def nets(place: Place) -> tuple[str, ...]:
    """The nets that are measured."""
    return place.size(("resnet18", "resnet20"), ("resnet10",))


def checkpoint(place: Place, net: str, density: float) -> sd.Checkpoint:
    """A net after a few epochs; trained once, for every section."""
    run = Run.of(
        {
            "data": sets.pictures(place),
            "model": {"name": net} | place.size({}, {"width": 8}),
            "mask": {"method": "random", "density": density} if density < 1 else {},
            "optim": {"epochs": place.size(2 if place.data else 8, 1), "lr": 0.05},
            "compute": {"precision": "bf16" if place.cuda else "float32"},
            "record": {"images": 64},
        }
    )
    return sd.Checkpoint.load(fit(run, out=place.out, device=str(place.device)))


def problem(place: Place, net: str, *, images: int, batch: int, density: float = 1.0) -> sd.Problem:
    """The loss of such a net on the device."""
    kept = checkpoint(place, net, density)
    return kept.problem(images=images, batch=batch, device=str(place.device))
