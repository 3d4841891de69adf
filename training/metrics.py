"""Metrics of a network while it trains; always the plain cross-entropy."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import prunable
from sparsediag.data.datasets import Data, Images
from sparsediag.diagnostics.gradflow import gradflow
from sparsediag.diagnostics.spectrum import spectrum
from sparsediag.models import Ghost
from training.config import Record

Row = dict[str, Any]
RSS_UNITS = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss in a MB


@torch.no_grad()
def evaluate(net: nn.Module, data: Data, images: Images, chunk: int = 1000) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in evaluation mode."""
    net.eval()
    total, correct = torch.zeros(2, dtype=torch.float64, device=images.labels.device)
    for pixels, labels in zip(images.pixels.split(chunk), images.labels.split(chunk), strict=True):
        outputs = net(data.normalise(pixels))
        total += F.cross_entropy(outputs, labels, reduction="sum")
        correct += (outputs.argmax(1) == labels).sum()
    return float(total) / len(images), float(correct) / len(images)


def ghosts(net: nn.Module) -> Row:
    """The largest strength of a ghost in the net, 0 for the plain net; weights that they add."""
    found = [m for m in net.modules() if isinstance(m, Ghost)]
    return {
        "ghosts": max((m.strength for m in found), default=0.0),
        "ghost_weights": sum(p.numel() for m in found for p in m.parameters()),
    }


def costs(epoch: int, speed: float, seconds: float, device: torch.device) -> Row:
    """Return the cost of an epoch: images a second, seconds, peak memory in MB."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / RSS_UNITS
    return {
        "epoch": epoch,
        "images_per_second": speed,
        "seconds": seconds,
        "peak_memory_mb": peak,
    }


def sparsity(net: nn.Module) -> Row:
    """Share of exact zeros among the weights that a mask can cover, and among all."""
    weights = dict(net.named_parameters())

    def zeros(tensors: Iterable[Tensor]) -> float:
        flat = torch.cat([t.detach().flatten() for t in tensors])
        return float((flat == 0).double().mean())

    return {
        "sparsity": zeros(weights[name] for name in prunable(net)),
        "sparsity_all": zeros(weights.values()),
    }


class Flow:
    """Gradient flow in the steps of an epoch, from the very gradients that the optimiser takes.

    The two means over layers are those of `gradflow`, here also the means over steps.
    """

    def __init__(self, net: nn.Module, mask: Mask | None) -> None:
        self.names = list(mask or prunable(net))
        self.weights = [net.get_parameter(name) for name in self.names]
        self.total = torch.zeros(len(self.names), device=self.weights[0].device)
        self.begin(mask)

    def begin(self, mask: Mask | None) -> None:
        """Begin an epoch."""
        self.total.zero_()
        sizes = {n: w.numel() for n, w in zip(self.names, self.weights, strict=True)}
        alive = {n: int(m.sum()) for n, m in mask.items()} if mask else sizes
        self.alive = self.total.new_tensor([max(1, alive[n]) for n in self.names])

    def add(self) -> None:
        """Count the gradients that are there."""
        norms = torch._foreach_norm([g for w in self.weights if (g := w.grad) is not None])
        self.total += torch.stack(norms)

    def row(self, steps: int) -> Row:
        """Return what the history says of it, after so many steps."""
        flow = self.total / steps
        return {
            "training_flow": float(flow.mean()),
            "training_flow_per_weight": float((flow / self.alive.sqrt()).mean()),
        }


def instruments(
    record: Record,
    net: nn.Module,
    mask: Mask | None,
    probe: list[tuple[Tensor, Tensor]],
    epoch: int,
) -> Row:
    """Gradient flow (batch statistics) and top eigenvalue (running ones), when asked for."""
    row: Row = {}
    if record.gradient_flow:
        flow = gradflow(Problem(net, probe, mask=mask, batch_norm="train"))
        row |= {"gradient_flow": flow.mean, "gradient_flow_per_weight": flow.mean_per_weight}
    if record.eigenvalue_every and epoch % record.eigenvalue_every == 0:
        top = spectrum(Problem(net, probe, mask=mask), top=1, tol=1e-2)
        squared = sum(float(p.detach().square().sum()) for p in net.parameters())
        row |= {
            "eigenvalue": float(top.eigenvalues[0]),
            "eigenvalue_residual": float(top.residuals[0]),
            "weight_norm": math.sqrt(squared),
        }
    return row
