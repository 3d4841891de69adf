"""Optimisers of the papers: SGD with momentum (ToST), and Adam (the pruning pipeline)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from training.schedule import decay


@dataclass(frozen=True)
class Optim:
    """The optimiser and its schedule; the defaults are ToST's (section 3).

    Attributes:
        name: "sgd", or "adam" (then `momentum` is not used).
        lr: Learning rate at the start.
        momentum: Of SGD.
        weight_decay: On all parameters, as in the authors' code.
        epochs: Passes over the training images.
        batch_size: Images a step; the last, smaller batch of an epoch is kept.
        lr_milestones: Fractions of the training after which the learning rate drops.
        lr_gamma: Factor of the learning rate at each of them.
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
        for key in ("lr", "epochs", "batch_size"):
            if not getattr(self, key) > 0:
                raise ValueError(f"{key} = {getattr(self, key)}: need a positive number")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum = {self.momentum}: need a number in [0, 1)")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay = {self.weight_decay}: need 0 or more")
        if not self.lr_gamma > 0:
            raise ValueError(f"lr_gamma = {self.lr_gamma}: need a positive number")
        for drop in self.lr_milestones:
            if not 0 < drop < 1:
                raise ValueError(
                    f"lr_milestones: {drop} is no fraction of the training; need 0 to 1"
                )

    def build(self, net: nn.Module) -> torch.optim.Optimizer:
        """A new optimiser for all parameters of `net`."""
        options: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        options |= self.kernels(next(net.parameters()).device)
        if self.name == "adam":
            return torch.optim.Adam(net.parameters(), **options)
        return torch.optim.SGD(net.parameters(), momentum=self.momentum, **options)

    def kernels(self, device: torch.device) -> dict[str, bool]:
        """Return how a step is computed: on a GPU by one kernel, which a graph can record."""
        if device.type != "cuda":
            return {"foreach": True}
        fused = {"fused": True, "foreach": False}
        return fused | {"capturable": True} if self.name == "adam" else fused

    def resume(self, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Load the state of an optimiser that may have been another device's."""
        for saved, own in zip(state["param_groups"], optimiser.param_groups, strict=True):
            kernels = ("foreach", "fused", "capturable")
            saved.update({key: own[key] for key in kernels if key in own})
        optimiser.load_state_dict(state)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        return self.lr * decay(self.lr_milestones, self.lr_gamma, epoch, self.epochs)
