"""Choose the memory format in which a network runs fastest on its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparsediag.core.batches import is_per_sample, select_samples, tensors_in, tree_map
from sparsediag.core.problem import Problem
from sparsediag.core.short_repr import short_repr

PROBE = 4  # samples to try a format with
FEWEST_CHANNELS = 8  # of a strided 1x1 convolution with channels last on a CPU


def corrupts_memory(weight: torch.Size, stride: Sequence[int]) -> bool:
    """Return whether the gradient of a channels-last convolution corrupts memory on a CPU.

    The backward pass of oneDNN's AVX2 kernel for strided 1x1 convolutions writes beyond its buffer
    if there are fewer input channels than numbers in a register, and the process crashes (torch
    2.10 to 2.15).
    """
    _, channels, *kernel = weight
    return max(kernel) == 1 < max(stride) and channels < FEWEST_CHANNELS


def may_train_channels_last(net: nn.Module) -> bool:
    """Return whether `net` can be trained with channels last on a CPU.

    >>> may_train_channels_last(nn.Conv2d(4, 8, 1, stride=2))
    False
    """
    convolutions = (m for m in net.modules() if isinstance(m, nn.Conv2d))
    return not any(corrupts_memory(m.weight.shape, m.stride) for m in convolutions)


class _Convolutions(TorchDispatchMode):
    """Record whether any convolution in the block, however it is called, corrupts memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.corrupt = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and disabling the compiler takes 2 s

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if operation is torch.ops.aten.convolution.default:
            self.corrupt |= corrupts_memory(args[1].shape, args[3])
        return operation(*args, **(kwargs or {}))


@dataclass(frozen=True)
class MemoryFormat:
    """The memory format of images and weights: channels last on a CPU, if the network allows it.

    Attributes:
        shapes: Of the weights, by name.
        channels_last: Whether four-dimensional tensors are stored with their channels last.
    """

    shapes: dict[str, torch.Size]
    channels_last: bool

    __repr__ = short_repr

    @classmethod
    def of(cls, problem: Problem) -> MemoryFormat:
        """Return the format for a problem; a net that calls `view` may need contiguous images."""
        shapes, batch = problem.live.shapes, problem.batches[0]
        x, _ = select_samples(batch, slice(PROBE)) if is_per_sample(batch) else batch
        if problem.device.type != "cpu" or all(t.dim() != 4 for t in tensors_in(x)):
            return cls(shapes, channels_last=False)
        trial = cls(shapes, channels_last=True)
        weights = {n: trial.convert(w) for n, w in problem.split(problem.weights).items()}
        try:
            with problem.evaluation_mode(), _Convolutions() as convolutions:
                problem.forward(weights, trial.convert_inputs(x))
        except RuntimeError:
            return cls(shapes, channels_last=False)
        return cls(shapes, channels_last=not convolutions.corrupt)

    def convert(self, x: Tensor) -> Tensor:
        """Return a tensor in this format."""
        if not self.channels_last or x.dim() != 4:
            return x
        return x.contiguous(memory_format=torch.channels_last)

    def convert_inputs(self, x: Any) -> Any:
        """Return the inputs of a net in this format."""
        return tree_map(x, self.convert)

    def convert_weights(self, named: dict[str, Tensor]) -> list[Tensor]:
        """Return weights in this format."""
        return [self.convert(t) for t in named.values()]

    def flatten(self, named: dict[str, Tensor]) -> Tensor:
        """Return weights as one vector, in the order in which they are in memory."""
        weights = [
            t.permute(0, 2, 3, 1) if self._is_permuted(t.shape) else t for t in named.values()
        ]
        return torch.cat([t.reshape(-1) for t in weights])

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the weights of a vector made by `flatten`, sharing its memory."""
        parts = vector.split([s.numel() for s in self.shapes.values()])
        return {
            name: part.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
            if self._is_permuted(shape)
            else part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def _is_permuted(self, shape: torch.Size) -> bool:
        return self.channels_last and len(shape) == 4
