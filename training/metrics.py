"""Metrics of a network while it trains: the columns of `history.jsonl` and `costs.jsonl`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag.core.atomic import atomic_write
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import prunable, weight_matrices
from sparsediag.data.datasets import Data
from sparsediag.data.images import AnyImages
from sparsediag.diagnostics.gradflow import gradflow, mean_flows
from sparsediag.diagnostics.spectrum import spectrum
from sparsediag.models import Ghost
from sparsediag.watch.probe import TOLERANCE
from sparsediag.watch.watch import Watch
from training.config import Record
from training.keeper import MaskedOptimizer

Row = dict[str, Any]

HISTORY = {
    "epoch": "Number of the epoch, from 1.",
    "lr": "Learning rate.",
    "objective": "Mean of the loss that is minimised, over the steps of the epoch, with label "
    "smoothing and distillation.",
    "train_loss": "Cross-entropy of the same steps, on augmented images.",
    "train_accuracy": "Accuracy of the same steps.",
    "val_loss": "Cross-entropy on the validation images, after the epoch.",
    "val_accuracy": "Accuracy on the validation images.",
    "ghosts": "Largest strength of a ghost; 0 is the plain network.",
    "ghost_weights": "Number of weights of the ghosts.",
    "sparsity": "Share of exact zeros among the prunable weights.",
    "sparsity_all": "Share of exact zeros among all parameters.",
    "training_flow": "Gradient norm of a layer, mean over layers and steps (record.gradient_flow).",
    "training_flow_per_weight": "The same, over the square root of the layer's live weights.",
    "gradient_flow": "Gradient norm of a layer after the epoch, mean over layers, on the probe "
    "images with batch statistics (record.gradient_flow).",
    "gradient_flow_per_weight": "The same, over the square root of the layer's live weights.",
    "eigenvalue": "Top Hessian eigenvalue after the epoch, on the probe images with running "
    "statistics (record.eigenvalue_every).",
    "eigenvalue_residual": "|Hv - value v| / |value|, which bounds its relative error.",
    "weight_norm": "Euclidean norm of all parameters (record.eigenvalue_every).",
    "test_loss": "Cross-entropy on the test images; of the last and of the best epoch.",
    "test_accuracy": "Accuracy on the test images; of the last and of the best epoch.",
    "best": "True in the epoch of best.pt: the best validation accuracy among the epochs after the "
    "first drop of the learning rate and without ghosts.",
}
COSTS = {
    "epoch": "Number of the epoch, from 1.",
    "images_per_second": "Training images per second, without the measurements.",
    "seconds": "Time of the epoch, with the measurements.",
    "setup_seconds": "Time before the first epoch: mask, weights and tweaks; then 0.",
    "peak_memory_mb": "Peak memory so far in MB: of the GPU, or of the process.",
}


@torch.no_grad()
def evaluate(
    net: nn.Module, data: Data, images: AnyImages, chunk: int = 1000
) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy, in evaluation mode.

    At most `chunk` images are computed at a time, and fewer if they are larger than 64 x 64.
    """
    net.eval()
    chunk = max(1, min(chunk, chunk * 64**2 // data.size**2))
    total, correct = torch.zeros(2, dtype=torch.float64, device=images.labels.device)
    for pixels, labels in zip(images.pixels.split(chunk), images.labels.split(chunk), strict=True):
        outputs = net(data.normalise(pixels))
        total += F.cross_entropy(outputs, labels, reduction="sum")
        correct += (outputs.argmax(1) == labels).sum()
    return float(total) / len(images), float(correct) / len(images)


def ghost_metrics(net: nn.Module) -> Row:
    """Return the largest strength of a ghost, 0 for the plain network, and their weights."""
    ghosts = [module for module in net.modules() if isinstance(module, Ghost)]
    return {
        "ghosts": max((ghost.strength for ghost in ghosts), default=0.0),
        "ghost_weights": sum(p.numel() for ghost in ghosts for p in ghost.parameters()),
    }


def sparsity_metrics(net: nn.Module) -> Row:
    """Return the share of exact zeros among the prunable weights, and among all."""
    weights = dict(net.named_parameters())

    def zeros(tensors: Iterable[Tensor]) -> float:
        flat = torch.cat([t.detach().flatten() for t in tensors])
        return float((flat == 0).double().mean())

    return {
        "sparsity": zeros(weights[name] for name in prunable(net)),
        "sparsity_all": zeros(weights.values()),
    }


def probe_metrics(
    record: Record,
    net: nn.Module,
    mask: Mask | None,
    probe: list[tuple[Tensor, Tensor]],
    epoch: int,
) -> Row:
    """Return the gradient flow (batch statistics) and the top eigenvalue (running statistics)."""
    row: Row = {}
    if record.gradient_flow:
        flow = gradflow(Problem(net, probe, mask=mask, batch_norm="train"))
        row |= {"gradient_flow": flow.mean, "gradient_flow_per_weight": flow.mean_per_weight}
    if record.eigenvalue_every and epoch % record.eigenvalue_every == 0:
        top = spectrum(Problem(net, probe, mask=mask), top=1, tol=TOLERANCE)
        row |= {
            "eigenvalue": float(top.eigenvalues[0]),
            "eigenvalue_residual": float(top.residuals[0]),
            "weight_norm": sum(float(p.detach().square().sum()) for p in net.parameters()) ** 0.5,
        }
    return row


def epoch_costs(epoch: int, speed: float, seconds: float, device: torch.device) -> Row:
    """Return the costs of an epoch: images per second, seconds, peak memory in MB."""
    return {
        "epoch": epoch,
        "images_per_second": speed,
        "seconds": seconds,
        "peak_memory_mb": _peak_memory(device),
    }


def _peak_memory(device: torch.device) -> float | None:
    """Return the peak memory in MB: of the GPU, or of this process (None on Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


class GradientFlow:
    """Gradient flow averaged over the steps of an epoch, from the gradients of the optimiser.

    Its two means over layers are those of `gradflow`.

    Attributes:
        total: Sum over steps of each layer's gradient norm, (layers,).
    """

    def __init__(self, net: nn.Module, mask: Mask | None) -> None:
        self.weights = [net.get_parameter(name) for name in mask or weight_matrices(net)]
        self.total = torch.zeros(len(self.weights), device=self.weights[0].device)
        self.begin(mask)

    def begin(self, mask: Mask | None) -> None:
        """Start an epoch with this mask."""
        self.total.zero_()
        masks = mask.values() if mask else []
        self.counts = np.array([int(m.sum()) for m in masks] or [w.numel() for w in self.weights])

    def add(self) -> None:
        """Add the current gradients."""
        norms = torch._foreach_norm([g for w in self.weights if (g := w.grad) is not None])
        self.total += torch.stack(norms)

    def row(self, steps: int) -> Row:
        """Return the entries of the history after that many steps."""
        mean, per_weight = mean_flows(self.total.cpu().numpy() / steps, self.counts)
        return {"training_flow": mean, "training_flow_per_weight": per_weight}


def watch_steps(
    record: Record,
    keeper: MaskedOptimizer,
    probe: list[tuple[Tensor, Tensor]],
    file: Path,
    *,
    steps: int,
    state: dict[str, Any] | None,
) -> Watch:
    """Return the `Watch` of a training that begins, or goes on from a saved state.

    Args:
        record: Options of the rows.
        keeper: The optimizer under its mask.
        probe: Images and labels of the metrics on a probe.
        file: File of the rows; those of steps that are trained again are dropped.
        steps: Number of steps that were taken.
        state: The saved state of the Watch, if there is one.
    """
    if file.exists():
        lines = [line for line in file.read_text().splitlines() if state and line.endswith("}")]
        with atomic_write(file) as draft:
            kept = [line + "\n" for line in lines if json.loads(line).get("step", 0) <= steps]
            draft.write_text("".join(kept))
    masked = keeper.mask is not None or "mask" in record.watch_metrics
    watch = Watch(
        keeper.net,
        mask=(lambda: keeper.mask) if masked else None,
        optimizer=keeper.optimiser,
        probe=probe,
        every=record.watch_every,
        metrics=record.watch_metrics or None,
        file=file,
    )
    watch.steps = steps
    if state:
        watch.load_state_dict(state)
    return watch
