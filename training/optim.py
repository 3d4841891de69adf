"""Optimisers of the papers and their schedule: SGD with momentum (ToST), Adam (the pipeline).

The schedule is given in fractions of the training, which keep the papers' proportions (180 epochs,
drops of the learning rate at 90 and 135) when a run is shortened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn


def epoch_at(fraction: float, epochs: int) -> int:
    """Return the first epoch, counted from 0, after that fraction of the training.

    >>> epoch_at(0.5, 180), epoch_at(0.75, 180)
    (90, 135)
    """
    return round(fraction * epochs)


@dataclass(frozen=True)
class Optim:
    """The optimiser and its schedule; the defaults are ToST's (section 3).

    Attributes:
        name: "sgd", or "adam", which does not use `momentum`.
        lr: Learning rate at the start.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of all parameters, as in the authors' code.
        epochs: Passes over the training images.
        batch_size: Images per step; the last, smaller batch of an epoch is kept.
        lr_milestones: Fractions of the training after which the learning rate drops.
        lr_gamma: Factor of the learning rate at each drop.
    """

    name: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    epochs: int = 180
    batch_size: int = 128
    lr_milestones: tuple[float, ...] = (0.5, 0.75)
    lr_gamma: float = 0.1

    def __post_init__(self) -> None:
        for key in ("lr", "epochs", "batch_size", "lr_gamma"):
            if not getattr(self, key) > 0:
                raise ValueError(f"{key} = {getattr(self, key)}: need a positive number")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum = {self.momentum}: need a number in [0, 1)")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay = {self.weight_decay}: need 0 or more")
        for fraction in self.lr_milestones:
            if not 0 < fraction < 1:
                raise ValueError(f"lr_milestones: {fraction} is no fraction between 0 and 1")

    def build(self, net: nn.Module) -> torch.optim.Optimizer:
        """Return a new optimiser for all parameters of `net`."""
        options: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        options |= self.kernels(next(net.parameters()).device)
        if self.name == "adam":
            return torch.optim.Adam(net.parameters(), **options)
        return torch.optim.SGD(net.parameters(), momentum=self.momentum, **options)

    def kernels(self, device: torch.device) -> dict[str, bool]:
        """Return torch's options for a fast step: on a GPU one kernel, which a graph can record."""
        if device.type != "cuda":
            return {"foreach": True}
        fused = {"fused": True, "foreach": False}
        return fused | {"capturable": True} if self.name == "adam" else fused

    def resume(self, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Load the state of an optimiser that may have been on another device."""
        for saved, group in zip(state["param_groups"], optimiser.param_groups, strict=True):
            kernels = ("foreach", "fused", "capturable")
            saved.update({key: group[key] for key in kernels if key in group})
        optimiser.load_state_dict(state)

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0.

        >>> [round(Optim().rate(epoch), 4) for epoch in (89, 90, 135)]
        [0.1, 0.01, 0.001]
        """
        drops = sum(epoch >= epoch_at(f, self.epochs) for f in self.lr_milestones)
        return self.lr * self.lr_gamma**drops
