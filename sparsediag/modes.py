"""Modes: how a net is set while it is measured, and how exact the arithmetic is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def measuring(net: nn.Module, *, share: float) -> Iterator[None]:
    """Batch norms take the statistics of a batch inside the block, and move theirs towards them.

    A batch that is a `share` of the samples so far leaves the mean over all of them.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(m.training, m.momentum) for m in norms]
    try:
        for m in norms:
            m.training, m.momentum = True, share
        yield
    finally:
        for m, (training, momentum) in zip(norms, before, strict=True):
            m.training, m.momentum = training, momentum


@contextmanager
def exactly(net: nn.Module, *, batch_norm: Literal["eval", "train"] = "eval") -> Iterator[None]:
    """`net` in evaluation mode and full float32 inside the block; all is put back at its end.

    Args:
        net: Its modules' modes are changed.
        batch_norm: "train" lets batch norms use the statistics of each batch.

    >>> net = nn.Dropout().train()
    >>> with exactly(net):
    ...     net.training
    False
    >>> net.training
    True
    """
    before = {m: m.training for m in net.modules()}
    precision = torch.get_float32_matmul_precision()
    recurrent = any(isinstance(m, nn.RNNBase) for m in before)  # cudnn's have no gradient here
    cudnn, fused = torch.backends.cudnn, torch.backends.mha.get_fastpath_enabled()
    try:
        for m in before:
            m.training = batch_norm == "train" and isinstance(m, nn.modules.batchnorm._BatchNorm)
        torch.set_float32_matmul_precision("highest")
        torch.backends.mha.set_fastpath_enabled(False)  # rounds otherwise than what has a gradient
        # the default for convolutions on a GPU, TF32, leaves ten bits
        enabled = cudnn.enabled and not recurrent
        with cudnn.flags(enabled, cudnn.benchmark, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.mha.set_fastpath_enabled(fused)
        for m, training in before.items():
            m.training = training


@contextmanager
def twice() -> Iterator[None]:
    """Functions that cannot be differentiated twice give way to equal ones that can.

    These are fused attention, and the hard sigmoid of MobileNetV3.

    >>> x = torch.tensor(1.0, requires_grad=True)
    >>> with twice():
    ...     (slope,) = torch.autograd.grad(F.hardsigmoid(x) * x, x, create_graph=True)
    >>> torch.autograd.grad(slope, x)[0]
    tensor(0.3333)
    """
    with sdpa_kernel(SDPBackend.MATH), _Smooth():
        yield


class _Smooth(TorchFunctionMode):
    """Hard sigmoids as what they are: a ramp between two kinks."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.hardsigmoid:
            return F.relu6((args[0] if args else kwargs["input"]) + 3) / 6
        return function(*args, **kwargs)
