"""The memory format in which a network runs fastest on its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparsediag.core.batches import is_per_sample, select_samples, tensors_in, tree_map
from sparsediag.core.problem import Problem

PROBE = 4  # samples that show whether a net runs in a layout
FEWEST_CHANNELS = 8  # of a strided 1x1 convolution with channels last on a CPU


def corrupts_memory(weight: torch.Size, stride: Sequence[int]) -> bool:
    """Return whether a convolution with channels last may not be differentiated on a CPU.

    The backward pass of oneDNN's AVX2 kernel for strided 1x1 convolutions writes beyond its buffer
    where there are fewer input channels than numbers in a register, and the process crashes
    (torch 2.10 to 2.15).
    """
    _, channels, *kernel = weight
    return max(kernel) == 1 < max(stride) and channels < FEWEST_CHANNELS


def may_train_channels_last(net: nn.Module) -> bool:
    """Return whether no convolution of `net` corrupts memory with channels last on a CPU.

    >>> may_train_channels_last(nn.Conv2d(4, 8, 1, stride=2))
    False
    """
    convolutions = (m for m in net.modules() if isinstance(m, nn.Conv2d))
    return not any(corrupts_memory(m.weight.shape, m.stride) for m in convolutions)


class _Convolutions(TorchDispatchMode):
    """Note whether a convolution that is run, in whatever way, corrupts memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.corrupt = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled in here, and shutting the compiler out takes 2 s

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if operation is torch.ops.aten.convolution.default:
            self.corrupt |= corrupts_memory(args[1].shape, args[3])
        return operation(*args, **(kwargs or {}))


@dataclass(frozen=True)
class MemoryFormat:
    """Memory format of images and weights: channels last on a CPU, where the network takes it.

    Attributes:
        shapes: Of the weights, by name.
        channels_last: Whether the channels of four-dimensional tensors lie last.
    """

    shapes: dict[str, torch.Size]
    channels_last: bool

    @classmethod
    def of(cls, problem: Problem) -> MemoryFormat:
        """The layout for one problem: a net that views images as vectors may not take another."""
        layout = cls(problem.live.shapes, problem.device.type == "cpu")
        batch = next(iter(problem.batches))
        x, _ = select_samples(batch, slice(PROBE)) if is_per_sample(batch) else batch
        if not layout.channels_last or all(t.dim() != 4 for t in tensors_in(x)):
            return cls(layout.shapes, False)
        weights = layout.convert_weights(problem.split(problem.weights))
        try:
            with torch.no_grad(), problem.evaluation_mode(), _Convolutions() as seen:
                problem.forward(
                    dict(zip(layout.shapes, weights, strict=True)), layout.convert_inputs(x)
                )
        except RuntimeError:
            return cls(layout.shapes, False)
        return cls(layout.shapes, not seen.corrupt)

    def convert(self, x: Tensor) -> Tensor:
        """A tensor in this layout."""
        if not self.channels_last or x.dim() != 4:
            return x
        return x.contiguous(memory_format=torch.channels_last)

    def convert_inputs(self, x: Any) -> Any:
        """Return what a net takes, in this layout."""
        return tree_map(x, self.convert)

    def convert_weights(self, named: dict[str, Tensor]) -> list[Tensor]:
        """Weights in this layout."""
        return [self.convert(t) for t in named.values()]

    def flatten(self, named: dict[str, Tensor]) -> Tensor:
        """Weights as one vector, in the order in which they lie in memory."""
        return torch.cat(
            [
                (t.permute(0, 2, 3, 1) if self._is_permuted(t.shape) else t).reshape(-1)
                for t in named.values()
            ]
        )

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """The weights that share their memory with such a vector."""
        parts = vector.split([s.numel() for s in self.shapes.values()])
        return {
            name: part.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
            if self._is_permuted(shape)
            else part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def _is_permuted(self, shape: torch.Size) -> bool:
        return self.channels_last and len(shape) == 4
