"""Distillation: the dense net as a teacher (Hinton et al., 2015), in the place of smoothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.prerequisite import Prerequisite
from training.tweaks.base import Objective, TrainingContext, Tweak


@dataclass(frozen=True)
class Distillation(Tweak):
    """(1 - alpha) CE + alpha t^2 KL(teacher || student), both softened by the temperature t.

    The teacher is the same net, trained dense and without tweaks.

    Attributes:
        temperature: What both nets' outputs are divided by.
        alpha: Share of the teacher in the loss; at 1 labels are not used.
    """

    temperature: float = 4.0
    alpha: float = 0.9

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature}: need a positive number")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha {self.alpha}: need a number from 0 to 1")

    def before(self) -> tuple[Prerequisite, ...]:
        return (Prerequisite(),)

    def start(self, scene: TrainingContext) -> nn.Module:
        """The teacher, in evaluation mode."""
        return scene.trained[0].build(next(scene.net.parameters()).device)

    def phase(self, epoch: int, epochs: int) -> None:
        """The teacher does not change."""

    def loss(self, loss: Objective, epoch: int, epochs: int, kept: Any = None) -> Objective:
        def distilled(outputs: Tensor, labels: Tensor, inputs: Tensor, **options: Any) -> Tensor:
            with torch.no_grad():
                taught = kept(inputs)
            own = loss(outputs, labels, inputs, **options)
            return (1 - self.alpha) * own + self.alpha * softened(outputs, taught, self.temperature)

        return distilled


def softened(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) at temperature t, the mean over the samples."""
    student = F.log_softmax(outputs / temperature, 1)
    teacher = F.log_softmax(taught / temperature, 1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
