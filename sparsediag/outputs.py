"""Outputs: what a net gives, be it a tensor, a tuple or a dict, and the loss that it suggests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def scores(outputs: Any) -> Any:
    """The scores among outputs: `logits`, or all there is; outputs of several kinds as they are.

    >>> scores({"loss": torch.zeros(()), "logits": torch.ones(2, 3)}).shape
    torch.Size([2, 3])
    """
    if not isinstance(outputs, Mapping):
        return outputs
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs.get("logits", outputs)


def loss(outputs: Any, targets: Any) -> Tensor:
    """The loss that outputs carry, as those of Hugging Face do when they get labels; otherwise
    the cross-entropy of the scores, a mean over the batch.

    >>> loss({"logits": torch.zeros(4, 2)}, torch.tensor([0, 1, 0, 1]))
    tensor(0.6931)
    """  # noqa: D205
    carried = outputs.get("loss") if isinstance(outputs, Mapping) else None
    if isinstance(carried, Tensor):
        return carried
    z = scores(outputs)
    if not (isinstance(z, Tensor) and isinstance(targets, Tensor)):
        raise ValueError(
            f"outputs {type(z).__name__} and targets {type(targets).__name__} have no loss of "
            "their own; give one: loss=lambda outputs, targets: ..."
        )
    entropy: Tensor = F.cross_entropy(z, targets.to(z.device))
    return entropy


def hits(outputs: Any, targets: Any) -> Tensor:
    """Number of samples whose highest score is that of their class, nan where there is no such."""
    z = scores(outputs)
    rows = isinstance(z, Tensor) and z.dim() == 2
    classes = isinstance(targets, Tensor) and targets.dim() == 1
    if not (rows and classes) or targets.is_floating_point() or len(z) != len(targets):
        device = z.device if isinstance(z, Tensor) else None
        return torch.full((), torch.nan, dtype=torch.float64, device=device)
    right: Tensor = (z.argmax(dim=1) == targets.to(z.device)).sum()
    return right.double()
