"""Trained nets whose curvature and landscape are measured."""

from __future__ import annotations

import sparsediag as sd
from tests.gpu import sets
from tests.gpu.settings import Settings
from training.config import Run
from training.loop import fit


def names(settings: Settings) -> tuple[str, ...]:
    """Return the names of the nets that are measured."""
    return settings.size(("resnet18", "resnet20"), ("resnet6",))


def checkpoint(settings: Settings, net: str, density: float) -> sd.Checkpoint:
    """Train a net for a few epochs, or load it if a section before has trained it."""
    run = Run.of(
        {
            "data": sets.pictures(settings),
            "model": {"name": net} | settings.size({}, {"width": 8}),
            "mask": {"method": "random", "density": density} if density < 1 else {},
            "optim": {"epochs": settings.size(2 if settings.data else 8, 1), "lr": 0.05},
            "compute": {"precision": "bf16" if settings.cuda else "float32"},
            "record": {"probe_samples": 64},
        }
    )
    return sd.Checkpoint.load(fit(run, out=settings.out, device=str(settings.device)))


def problem(
    settings: Settings, net: str, *, images: int, batch: int, density: float = 1.0
) -> sd.Problem:
    """Return the loss of such a net on the device."""
    kept = checkpoint(settings, net, density)
    return kept.problem(images=images, batch=batch, device=str(settings.device))
