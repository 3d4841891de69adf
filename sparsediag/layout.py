"""Layout: the order of a net's numbers in memory that is fastest where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsediag.batches import even, moved, rows, tensors
from sparsediag.problem import Problem

PROBE = 4  # samples that show whether a net runs in a layout


@dataclass(frozen=True)
class Layout:
    """How images and weights lie in memory: channels last on a CPU, where the net takes it.

    Attributes:
        shapes: Of the weights, by name.
        last: Whether the channels of four-dimensional tensors lie last.
    """

    shapes: dict[str, torch.Size]
    last: bool

    @classmethod
    def of(cls, problem: Problem) -> Layout:
        """The layout for one problem: a net that views images as vectors may not take another."""
        layout = cls(problem.live.shapes, problem.device.type == "cpu")
        batch = next(iter(problem.batches))
        x, _ = rows(batch, slice(PROBE)) if even(batch) else batch
        if not layout.last or all(t.dim() != 4 for t in tensors(x)):
            return cls(layout.shapes, False)
        weights = layout.weights(problem.split(problem.weights))
        try:
            with torch.no_grad(), problem.modes():
                problem.call(dict(zip(layout.shapes, weights, strict=True)), layout.inputs(x))
        except RuntimeError:
            return cls(layout.shapes, False)
        return layout

    def images(self, x: Tensor) -> Tensor:
        """A tensor in this layout."""
        if not self.last or x.dim() != 4:
            return x
        return x.contiguous(memory_format=torch.channels_last)

    def inputs(self, x: Any) -> Any:
        """What a net takes, in this layout."""
        return moved(x, self.images)

    def weights(self, named: dict[str, Tensor]) -> list[Tensor]:
        """Weights in this layout."""
        return [self.images(t) for t in named.values()]

    def flat(self, named: dict[str, Tensor]) -> Tensor:
        """Weights as one vector, in the order in which they lie in memory."""
        return torch.cat(
            [
                (t.permute(0, 2, 3, 1) if self._rolls(t.shape) else t).reshape(-1)
                for t in named.values()
            ]
        )

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """The weights that share their memory with such a vector."""
        parts = vector.split([s.numel() for s in self.shapes.values()])
        return {
            name: part.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
            if self._rolls(shape)
            else part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def _rolls(self, shape: torch.Size) -> bool:
        return self.last and len(shape) == 4
