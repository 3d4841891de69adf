"""A training step on one batch, computed on the device."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsediag.watch.watch import Watch
from training.compute import Forward
from training.keeper import MaskedOptimizer
from training.metrics import GradientFlow, Row
from training.tweaks import Objective, cross_entropy


class Step:
    """A training step that never waits for the device: sums stay there.

    Args:
        load: Function from the arguments of a batch to its images and labels; see
            `training.loader.load_batch`.
        forward: Function from images to outputs.
        keeper: The optimiser under its mask.
        flow: The gradient flow to update in every step, if any.
        watch: What measures steps, if anything; it may wait for the device where a row is due.

    Attributes:
        sums: Sums over the epoch so far, (4,) in float64: minimised losses, cross-entropies
            and correct predictions over images, and the number of steps before the first loss that
            is not finite.
        images: Number of images of the epoch so far.
        steps: Number of steps of the epoch so far.
        epoch: Number of the epoch, from 1.
    """

    def __init__(
        self,
        load: Callable[..., tuple[Tensor, Tensor]],
        forward: Forward,
        keeper: MaskedOptimizer,
        flow: GradientFlow | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.load, self.forward, self.keeper = load, forward, keeper
        self.flow, self.watch = flow, watch
        self.loss: Objective = cross_entropy
        device = next(keeper.net.parameters()).device
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)
        self.images = self.steps = self.epoch = 0

    def begin(self, loss: Objective) -> None:
        """Start an epoch with this loss."""
        self.loss, self.images, self.steps = loss, 0, 0
        self.sums.zero_()
        if self.flow:
            self.flow.begin(self.keeper.mask)

    def __call__(self, *indices: Tensor) -> None:
        """Train on one batch."""
        self.count(len(indices[0]), self.compute(*indices))

    def compute(self, *indices: Tensor) -> Tensor:
        """Do the part of a step that the device computes; return the loss."""
        x, labels = self.load(*indices)
        self.keeper.sample_gates()
        outputs = self.forward(x)
        loss = self.loss(outputs, labels, x)
        self.keeper.optimiser.zero_grad()
        loss.backward()
        self.keeper.update()
        if self.flow:
            self.flow.add()
        loss, outputs = loss.detach(), outputs.detach()
        total, entropy, correct, finite = self.sums.unbind()
        total += loss * len(labels)
        plain = loss if self.loss is cross_entropy else F.cross_entropy(outputs, labels)
        entropy += plain * len(labels)
        correct += (outputs.argmax(1) == labels).sum()
        finite += total.isfinite()
        return loss

    def count(self, images: int, loss: Tensor | None = None) -> None:
        """Count a step, and measure it if a row is due."""
        self.images, self.steps = self.images + images, self.steps + 1
        self.keeper.count()
        if self.watch:
            with self.keeper.inference_weights():
                self.watch.step(loss, epoch=self.epoch)

    @property
    def repeats(self) -> bool:
        """Return whether the next step does the same as the steps around it."""
        return self.keeper.repeats and not (self.watch and self.watch.collecting)

    def written_tensors(self) -> list[Tensor]:
        """Return every tensor that `compute` writes into and that outlives it."""
        net, optimiser = self.keeper.net, self.keeper.optimiser
        states = [s for state in optimiser.state.values() for s in state.values()]
        sums = [self.sums] if self.flow is None else [self.sums, self.flow.total]
        tensors = [*net.parameters(), *net.buffers(), *states, *sums]
        return [t.detach() for t in tensors if isinstance(t, Tensor)]

    def end(self) -> tuple[Row, int]:
        """End an epoch: check the dead weights; return columns of `HISTORY`, and finite steps."""
        self.keeper.assert_masked()
        *totals, finite = self.sums.tolist()
        means = [total / self.images for total in totals]
        names = ("objective", "train_loss", "train_accuracy")
        return dict(zip(names, means, strict=True)), int(finite)
