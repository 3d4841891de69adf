"""Precision, memory format and compilation of a training step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sparsediag.core.errors import ConfigError
from sparsediag.core.evaluation import deterministic_eval, full_precision
from sparsediag.core.memory_format import may_train_channels_last

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Compute:
    """Options of the forward pass of a training.

    Weights, gradients, the optimiser, metrics and the teacher of a distillation are float32.

    Attributes:
        precision: "float32" is exact on a GPU too. "tf32" lets a GPU round the factors of products
            to ten bits, which is fast; elsewhere it is float32. "bf16" computes the forward pass
            and its derivative under autocast, and other products in TF32.
        layout: Memory format of images and convolutions; "auto" is "channels_last" on a GPU. On a
            CPU a network that torch cannot train that way stays contiguous, with a warning.
        compile: Use `torch.compile`. Before the first step the outputs for one batch are compared
            with those of the network itself.
    """

    precision: Literal["float32", "tf32", "bf16"] = "float32"
    layout: Literal["auto", "contiguous", "channels_last"] = "auto"
    compile: bool = False

    def arithmetic(self) -> AbstractContextManager[None]:
        """Return a context in which float32 products have the precision asked for."""
        return full_precision(tf32=self.precision != "float32")

    def set_memory_format(self, net: nn.Module, device: torch.device) -> None:
        """Set the memory format of the weights of `net`, in place."""
        memory_format = self._memory_format(net, device)
        if memory_format is torch.channels_last:
            net.to(memory_format=memory_format)
        elif self.layout == "channels_last":
            warnings.warn(
                "compute.layout: a 1x1 convolution with a stride and few channels would crash with "
                "channels last on a CPU, so the network stays contiguous",
                stacklevel=2,
            )

    def build_forward(self, net: nn.Module, sample: Tensor) -> Forward:
        """Return the function from a batch of images to float32 outputs.

        Args:
            net: In any mode, which is left as it is.
            sample: A batch to compare the compiled network on.

        Raises:
            ConfigError: If the network cannot be compiled, or its outputs differ then.
        """
        eager = self._forward(net, net, sample.device)
        if not self.compile:
            return eager
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from within the compiler
            compiled = self._forward(torch.compile(net), net, sample.device)
            try:
                with deterministic_eval(net), torch.no_grad():
                    expected, outputs = eager(sample), compiled(sample)
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:200]
                message = f"compute.compile: the net cannot be compiled: {reason}"
                raise ConfigError(message) from error
        tolerance = 1e-2 if self.precision == "bf16" else 1e-4
        difference = float((outputs - expected).norm() / expected.norm().clamp_min(1e-30))
        if not difference <= tolerance:
            raise ConfigError(
                f"compute.compile: the compiled net's outputs are off by {difference:.1e} on this "
                "device; leave compile at false"
            )
        return compiled

    def _forward(
        self, function: Callable[[Tensor], Tensor], net: nn.Module, device: torch.device
    ) -> Forward:
        half, memory_format = self.precision == "bf16", self._memory_format(net, device)

        def forward(x: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                return function(x.contiguous(memory_format=memory_format)).float()

        return forward

    def _memory_format(self, net: nn.Module, device: torch.device) -> torch.memory_format:
        if device.type == "cpu":
            fast = self.layout == "channels_last" and may_train_channels_last(net)
        else:
            fast = self.layout != "contiguous"
        return torch.channels_last if fast else torch.contiguous_format
