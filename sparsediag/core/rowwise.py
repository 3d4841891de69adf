"""Nets whose structure tells that they treat each sample by itself, so that nothing is measured."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sparsediag.core.evaluation import BATCH_NORMS

# layers that compute each row of their input by itself in evaluation mode
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Softplus)
OF_ROWS = (nn.Linear, nn.Identity, nn.Dropout, nn.LayerNorm, nn.BatchNorm1d, *ACTIVATIONS)
OF_IMAGES = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


def is_chain_of_rowwise_layers(net: nn.Module, inputs: Any) -> bool:
    """Return whether a net is a chain of layers that treat each row of their input by itself.

    That is an `nn.Sequential` of common layers of torch. Others may do so too.

    Args:
        net: Any module.
        inputs: Of a batch; images have four dimensions, since layers take a single one, too.

    >>> import torch
    >>> inputs, layer = torch.ones(3, 2), nn.Linear(2, 2)
    >>> is_chain_of_rowwise_layers(nn.Sequential(layer, nn.ReLU()), inputs)
    True
    >>> is_chain_of_rowwise_layers(nn.Sequential(layer, nn.Softmax(0)), inputs)
    False
    """
    if not isinstance(inputs, Tensor) or inputs.dim() < 2:
        return False
    kinds = (*OF_ROWS, *(OF_IMAGES if inputs.dim() == 4 else ()), nn.Sequential)
    return all(
        (type(m) in kinds or (type(m) is nn.Flatten and m.start_dim == 1))
        and not (m._forward_hooks or m._forward_pre_hooks)
        and not (isinstance(m, BATCH_NORMS) and m.running_mean is None)
        for m in net.modules()
    )
