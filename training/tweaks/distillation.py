"""Distillation from the dense network (Hinton et al., 2015), in place of label smoothing."""

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
    """Distillation: (1 - alpha) CE + alpha t^2 KL(teacher || student) at temperature t.

    The teacher is the same network, trained dense and without tweaks.

    Attributes:
        temperature: Divisor of the outputs of both networks.
        alpha: Weight of the teacher in the loss; at 1 labels are not used.
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

    def start(self, context: TrainingContext) -> nn.Module:
        """Return the teacher in evaluation mode."""
        return context.trained[0].build(next(context.net.parameters()).device)

    def phase(self, epoch: int, epochs: int) -> None:
        """Return the same key for all epochs."""

    def loss(self, loss: Objective, epoch: int, epochs: int, state: Any = None) -> Objective:
        def distilled(outputs: Tensor, labels: Tensor, inputs: Tensor, **options: Any) -> Tensor:
            with torch.no_grad():
                teacher = state(inputs)
            hard = loss(outputs, labels, inputs, **options)
            soft = distillation_loss(outputs, teacher, self.temperature)
            return (1 - self.alpha) * hard + self.alpha * soft

        return distilled


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return t^2 KL(teacher || student) of logits at temperature t, the mean over the samples."""
    log_student = F.log_softmax(student / temperature, 1)
    log_teacher = F.log_softmax(teacher / temperature, 1)
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * divergence
