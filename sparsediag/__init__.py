"""Train sparse neural networks well, and see what happens inside them.

>>> import sparsediag as sd
>>> net = sd.models.build("lenet300", size=8)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparsediag.core.version import __version__ as __version__

if TYPE_CHECKING:
    from sparsediag import data, models
    from sparsediag.checkpoint import mask_file as maskfile
    from sparsediag.checkpoint.checkpoint import Checkpoint
    from sparsediag.checkpoint.strip_pruning import plain
    from sparsediag.checkpoint.strip_pruning import plain as strip_pruning
    from sparsediag.core.errors import CheckpointError, ConfigError
    from sparsediag.core.mask import Mask
    from sparsediag.core.problem import Problem
    from sparsediag.core.prunable import prunable
    from sparsediag.core.prunable import prunable as prunable_weights
    from sparsediag.curvature.operator import Curvature
    from sparsediag.diagnostics.activations import Activations, activations
    from sparsediag.diagnostics.blocks import Blocks, blocks
    from sparsediag.diagnostics.blocks import blocks as block_spectrum
    from sparsediag.diagnostics.census import Census, census
    from sparsediag.diagnostics.census import census as mask_statistics
    from sparsediag.diagnostics.comparison import Comparison, compare
    from sparsediag.diagnostics.course import Course, course
    from sparsediag.diagnostics.course import course as layer_history
    from sparsediag.diagnostics.gradflow import Gradflow, gradflow
    from sparsediag.diagnostics.inputscape import Inputscape, inputscape
    from sparsediag.diagnostics.landscape import Landscape, landscape
    from sparsediag.diagnostics.perturbation import Perturbation, perturbation
    from sparsediag.diagnostics.report.report import report
    from sparsediag.diagnostics.result import Result
    from sparsediag.diagnostics.signal import Signal, signal
    from sparsediag.diagnostics.spectrum import Spectrum, spectrum
    from sparsediag.diagnostics.subspace import overlap
    from sparsediag.diagnostics.subspace import overlap as subspace_overlap
    from sparsediag.diagnostics.trace import Trace, trace
    from sparsediag.diagnostics.trajectory import Trajectory, trajectory
    from sparsediag.diagnostics.trajectory import trajectory as spectrum_history
    from sparsediag.surfaces.interpolation import interpolate, pca_plane
    from sparsediag.surfaces.interpolation import interpolate as through
    from sparsediag.surfaces.interpolation import pca_plane as principal
    from sparsediag.surfaces.plane import Plane, plane

_WHERE = {
    "Census": "diagnostics.census",
    "Checkpoint": "checkpoint.checkpoint",
    "CheckpointError": "core.errors",
    "Comparison": "diagnostics.comparison",
    "ConfigError": "core.errors",
    "Course": "diagnostics.course",
    "Curvature": "curvature.operator",
    "Mask": "core.mask",
    "Plane": "surfaces.plane",
    "Problem": "core.problem",
    "Result": "diagnostics.result",
    "Trajectory": "diagnostics.trajectory",
    "census": "diagnostics.census",
    "compare": "diagnostics.comparison",
    "course": "diagnostics.course",
    "interpolate": "surfaces.interpolation",
    "overlap": "diagnostics.subspace",
    "pca_plane": "surfaces.interpolation",
    "plain": "checkpoint.strip_pruning",
    "plane": "surfaces.plane",
    "prunable": "core.prunable",
    "report": "diagnostics.report.report",
    "trajectory": "diagnostics.trajectory",
}

# second names of functions, and the names that they are defined by
_ALIASES = {
    "block_spectrum": "blocks",
    "layer_history": "course",
    "mask_statistics": "census",
    "principal": "pca_plane",
    "prunable_weights": "prunable",
    "spectrum_history": "trajectory",
    "strip_pruning": "plain",
    "subspace_overlap": "overlap",
    "through": "interpolate",
}

_MODULES = {"data": "data", "maskfile": "checkpoint.mask_file", "models": "models"}

__all__ = [
    "Activations",
    "Blocks",
    "Census",
    "Checkpoint",
    "CheckpointError",
    "Comparison",
    "ConfigError",
    "Course",
    "Curvature",
    "Gradflow",
    "Inputscape",
    "Landscape",
    "Mask",
    "Perturbation",
    "Plane",
    "Problem",
    "Result",
    "Signal",
    "Spectrum",
    "Trace",
    "Trajectory",
    "activations",
    "block_spectrum",
    "blocks",
    "census",
    "compare",
    "course",
    "data",
    "gradflow",
    "inputscape",
    "interpolate",
    "landscape",
    "layer_history",
    "mask_statistics",
    "maskfile",
    "models",
    "overlap",
    "pca_plane",
    "perturbation",
    "plain",
    "plane",
    "principal",
    "prunable",
    "prunable_weights",
    "report",
    "signal",
    "spectrum",
    "spectrum_history",
    "strip_pruning",
    "subspace_overlap",
    "through",
    "trace",
    "trajectory",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `sparsediag --help` does not wait for torch (PEP 562)."""
    name = _ALIASES.get(name, name)
    if name in _WHERE:
        return getattr(importlib.import_module(f"sparsediag.{_WHERE[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"sparsediag.{_MODULES[name]}")
    from sparsediag.diagnostics import DIAGNOSTICS

    if name in DIAGNOSTICS or (name.capitalize() == name and name.lower() in DIAGNOSTICS):
        return getattr(importlib.import_module(f"sparsediag.diagnostics.{name.lower()}"), name)
    raise AttributeError(f"module 'sparsediag' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
