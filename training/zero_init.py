"""ZerO: an initialisation of zeros, ones and Hadamard signs, without chance (Zhao et al., 2022).

A layer is a matrix, outputs by inputs: the identity as far as it goes, or rows of a Hadamard matrix
times 2^(-(m-1)/2), where 2^m is the first power of two that holds its larger side. A convolution
has that matrix at its centre and 0 around it. Biases are 0, norms the identity.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from scipy.linalg import hadamard
from torch import Tensor, nn

from sparsediag.core.errors import ConfigError
from sparsediag.core.problem import Problem
from sparsediag.core.prunable import permanent_modules
from sparsediag.diagnostics.activations import activations

LEARNING = 0.2  # the least share of a weight's rows that have a gradient
ACTIVE = 0.02  # the least share of activations that are not 0
STEP = 1e-3
Orientation = Literal["zero_hadamard", "zero_widening", "zero_narrowing"]


def matrix(outs: int, ins: int, *, widening: bool) -> Tensor:
    """The ZerO matrix of a layer, (outs, ins).

    Args:
        outs: Number of outputs.
        ins: Number of inputs.
        widening: Hadamard signs where there are more outputs than inputs, as its authors have it;
            else where there are fewer, as the pruning pipeline has it. The identity otherwise.

    >>> matrix(2, 3, widening=True).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    >>> matrix(2, 4, widening=False).abs().unique().tolist()
    [0.7071067690849304]
    """
    if outs == ins or (outs > ins) != widening:
        return torch.eye(outs, ins)
    m = math.ceil(math.log2(max(outs, ins)))
    signs = torch.from_numpy(hadamard(2**m)[:outs, :ins]).to(torch.get_default_dtype())
    return 2 ** (-(m - 1) / 2) * signs


@torch.no_grad()
def initialise(net: nn.Module, orientation: Orientation = "zero_hadamard") -> None:
    """Set the weights of `net`, in place.

    Args:
        net: New: its norms are the identity. What a ghost adds is left as it is.
        orientation: Where Hadamard signs go: "zero_widening", "zero_narrowing" (see `matrix`), or
            "zero_hadamard", which widens convolutions and narrows linear layers: the other way
            round, a perceptron sees three rows of its image, and a convolution three channels.
    """
    for _, module in permanent_modules(net):
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            conv, weight = not isinstance(module, nn.Linear), module.weight
            wide = orientation == "zero_widening" or (orientation == "zero_hadamard" and conv)
            full_matrix = matrix(*weight.shape[:2], widening=wide).to(weight)
            weight.zero_()
            taps = weight.flatten(2) if weight.dim() > 2 else weight[:, :, None]
            taps[:, :, taps.shape[2] // 2] = full_matrix  # the middle tap: sides are odd
            if module.bias is not None:
                module.bias.zero_()


def check_trainable(problem: Problem) -> None:
    """Refuse a start from which most of some layer could never learn.

    After a small step of gradient descent a fifth of the rows of every weight must have a gradient,
    and on these samples 2 % of the activations of every layer must be other than 0: a perceptron
    that looks at the upper rows of MNIST's images has 0.5 %. (Many are 0 in a convolutional net
    that does learn: what 3 channels give under Hadamard signs cancels, until the first step.)

    Raises:
        ConfigError: If they have not, with the layer and the share.
    """
    result = activations(problem)
    for name, zeros in zip(result.names, result.zeros, strict=True):
        if 1 - zeros < ACTIVE:
            raise ConfigError(_dead(f"{1 - zeros:.1%} of the activations of '{name}' are not 0"))
    stepped = problem.weights - STEP * problem.gradient()
    for name, slope in problem.split(problem.gradient(stepped)).items():
        learning = (slope.flatten(1) != 0).any(1).double().mean() if slope.dim() > 1 else 1.0
        if learning < LEARNING:
            raise ConfigError(_dead(f"{learning:.1%} of the rows of '{name}' have a gradient"))


def _dead(finding: str) -> str:
    return (
        f"the net would start dead: {finding}. Use another init: 'zero_hadamard' turns Hadamard "
        "signs the right way for linear and for convolutional layers, 'default' is PyTorch's"
    )
