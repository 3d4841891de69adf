"""Diagnostics of a trained network: one file is one function, one result and one command."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

DIAGNOSTICS = {
    "spectrum": "top Hessian eigenvalues with a certificate, and the density; or along a run",
    "blocks": "top Hessian eigenvalues of every layer or stage on its own",
    "trace": "trace of the Hessian, with its error",
    "activations": "share of zero activations and dead units, block by block; or along a run",
    "gradflow": "gradient norm of live, dead and regrown weights by layer; or along a run",
    "signal": "size of outputs and gradients through the depth, and what tells samples apart",
    "perturbation": "loss along the top Hessian eigenvectors, beside the quadratic model",
    "landscape": "loss on a line or a plane through the weights of one net, several, or a run",
    "inputscape": "loss on planes through the images",
}
ADDED: dict[str, Callable[..., Any]] = {}  # those of plug-ins; see `plugins`


def load_diagnostic(name: str) -> Callable[..., Any]:
    """Return the function of a diagnostic; its module is imported on first use."""
    if name in ADDED:
        return ADDED[name]
    function: Callable[..., Any] = getattr(importlib.import_module(f"{__name__}.{name}"), name)
    return function
