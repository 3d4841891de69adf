"""Precision, memory format and compilation of a training step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sparsediag.core.errors import ConfigError
from sparsediag.core.evaluation import deterministic_eval, full_precision
from sparsediag.core.memory_format import may_train_channels_last

Forward = Callable[[Tensor], Tensor]


@contextmanager
def repeatable() -> Iterator[None]:
    """Inside, the same numbers come out each time, on a GPU too."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


@dataclass(frozen=True)
class Compute:
    """The ways of a training's forward pass.

    Weights, their gradients, the optimiser, what is measured and a teacher are float32 numbers.

    Attributes:
        precision: "float32" means it, on a GPU too. "tf32" lets a GPU round the factors of products
            to ten bits, which is fast; elsewhere it is float32. "bf16" computes the forward pass
            and its derivative under autocast, and other products in TF32.
        layout: How images and convolutions lie in memory; "auto" is channels_last on a GPU. On a
            CPU a network that torch cannot train that way stays contiguous, with a warning.
        compile: Through `torch.compile`. The outputs of one batch must be those of the net as it
            is, up to rounding, before the first step is made with it.
    """

    precision: Literal["float32", "tf32", "bf16"] = "float32"
    layout: Literal["auto", "contiguous", "channels_last"] = "auto"
    compile: bool = False

    def arithmetic(self) -> AbstractContextManager[None]:
        """Return the block in which the precision of float32 products is the one asked for."""
        return full_precision(tf32=self.precision != "float32")

    def place(self, net: nn.Module, device: torch.device) -> None:
        """Lay the weights of `net` out in memory, in place."""
        asked = self.layout == "channels_last"
        if device.type == "cpu" and asked and not may_train_channels_last(net):
            warnings.warn(
                "compute.layout: a 1x1 convolution with a stride and few channels would crash with "
                "channels last on a CPU, so the network stays contiguous",
                stacklevel=2,
            )
        if self._format(net, device) is torch.channels_last:
            net.to(memory_format=torch.channels_last)

    def forward(self, net: nn.Module, sample: Tensor) -> Forward:
        """The way from a batch of images to float32 outputs.

        Args:
            net: In any mode, which is left as it is.
            sample: A batch to compare on.

        Raises:
            ConfigError: If the net cannot be compiled, or its outputs are not the net's.
        """
        layout = self._format(net, sample.device)
        eager = self._forward(net, sample.device, layout)
        if not self.compile:
            return eager
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from within the compiler
            compiled = self._forward(torch.compile(net), sample.device, layout)
            try:
                with deterministic_eval(net), torch.no_grad():
                    expected, came = eager(sample), compiled(sample)
            except RuntimeError as error:
                why = " ".join(str(error).split())[:200]
                raise ConfigError(f"compute.compile: the net cannot be compiled: {why}") from error
        rough = 1e-2 if self.precision == "bf16" else 1e-4
        off = float((came - expected).norm() / expected.norm().clamp_min(1e-30))
        if not off <= rough:
            raise ConfigError(
                f"compute.compile: the compiled net's outputs are off by {off:.1e} on this device; "
                "leave compile at false"
            )
        return compiled

    def _forward(
        self, net: Callable[[Tensor], Tensor], device: torch.device, layout: torch.memory_format
    ) -> Forward:
        half = self.precision == "bf16"

        def forward(x: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                return net(x.contiguous(memory_format=layout)).float()

        return forward

    def _format(self, net: nn.Module, device: torch.device) -> torch.memory_format:
        if device.type == "cpu":
            fast = self.layout == "channels_last" and may_train_channels_last(net)
        else:
            fast = self.layout != "contiguous"
        return torch.channels_last if fast else torch.contiguous_format
