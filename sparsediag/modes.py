"""Modes: how a net is set while it is measured, and how exact the arithmetic is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn


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
