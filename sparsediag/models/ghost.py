"""Ghosts: layers that help a sparse net in training and fade out (ToST, section 2.2).

A ghost has a strength between 1 and 0 in a buffer, so that a checkpoint taken during training
restores it. At strength 0 the network is the plain one, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Ghost(nn.Module):
    """A layer with a strength in [0, 1].

    The buffer is saved in the state dict; `strength` is the same number as a Python float, so that
    a forward pass on a GPU need not wait to read it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_strength", torch.tensor(1.0))
        self.strength = 1.0

    def fade(self, strength: float) -> None:
        """Set the strength: 1 is a full ghost, 0 is the plain net."""
        if not 0 <= strength <= 1:
            raise ValueError(f"ghost strength {strength}: need a number in [0, 1]")
        self.get_buffer("_strength").fill_(strength)
        self.strength = float(self.get_buffer("_strength"))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.strength = float(self.get_buffer("_strength"))

    def extra_repr(self) -> str:
        return f"strength={self.strength:g}"


class GhostReLU(Ghost):
    """A parametric Swish that becomes ReLU: `x * sigmoid(x / strength)` (ToST, GSw).

    The strength is the paper's 1 / beta: 1 is Swish, and the difference from ReLU is at most
    0.2785 * strength.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.strength == 0:
            return F.relu(x)
        return self.strength * F.silu(x / self.strength) if self.strength < 1 else F.silu(x)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "ghost": GhostReLU,
}


Site = Literal["convolution", "block_output"]
SKIPS = ("identity_bn", "identity_rms", "identity", "average", "interpolate", "conv1x1_bn")


class GhostSkip(Ghost):
    """A temporary skip around one convolution or block: `z + strength * P(x)` (ToST, GSk).

    P averages over the stride, pads the channels with zeros or drops some, and normalises. Without
    a norm (`identity`, `interpolate`) features double at every block and the net fails without the
    skip, so those kinds exist for comparison only.

    Args:
        ins: Channels of the convolution's input x.
        outs: Channels of its output z.
        stride: Stride of the convolution.
        kind: `identity_bn` (parameter-free batch norm), `identity_rms` (unit root mean square per
            image), `identity` (as the paper writes), `average` (the mean of z and P(x), weighted 1
            and strength), `interpolate` (P interpolates linearly over channels, height and width,
            as in the pruning pipeline), or `conv1x1_bn` (the authors' code: a learned, dense 1x1
            convolution with batch norm).
    """

    temporary = True

    def __init__(self, ins: int, outs: int, stride: int, kind: str) -> None:
        super().__init__()
        if kind not in SKIPS:
            raise ValueError(f"skips '{kind}': need one of {', '.join(SKIPS)}, or none")
        self.ins, self.outs, self.stride, self.kind = ins, outs, stride, kind
        if kind == "conv1x1_bn":
            # draws no random numbers, so that the rest of the net starts as without ghosts
            self.conv = nn.utils.skip_init(nn.Conv2d, ins, outs, 1, stride=stride, bias=False)
            nn.init.constant_(self.conv.weight, 1e-4)
            self.norm: nn.Module = nn.BatchNorm2d(outs)
        elif kind == "identity_bn":
            self.norm = nn.BatchNorm2d(outs, affine=False)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        if self.strength == 0:
            return z
        output = torch.add(z, self.path(x), alpha=self.strength)
        return output / (1 + self.strength) if self.kind == "average" else output

    def path(self, x: Tensor) -> Tensor:
        """Return the skipped signal P(x), in the shape of z."""
        if self.kind == "conv1x1_bn":
            learned: Tensor = self.norm(self.conv(x))
            return learned
        if self.kind == "interpolate":
            return interpolate(x, (self.outs, *(-(-n // self.stride) for n in x.shape[2:])))
        if x.dim() == 4:
            if self.stride > 1:
                x = F.avg_pool2d(x, self.stride, ceil_mode=True)
            if self.outs != self.ins:
                x = F.pad(x, (0, 0, 0, 0, 0, self.outs - self.ins))
        if self.kind == "identity_bn":
            normed: Tensor = self.norm(x if x.dim() == 4 else x[:, :, None, None])
            return normed.view_as(x)
        if self.kind == "identity_rms":
            dims = tuple(range(1, x.dim()))
            return x * torch.rsqrt(x.square().mean(dims, keepdim=True) + 1e-5)
        return x


def interpolate(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize every axis but the first by linear interpolation between the centres of its cells.

    The numbers are those of `F.interpolate` up to rounding, but the gradient of that one is not
    deterministic on a GPU. A product with a small matrix for each axis is.
    """
    for axis, (old, new) in enumerate(zip(x.shape[1:], size, strict=True), 1):
        if old != new:
            start, end = (torch.arange(n, device=x.device, dtype=torch.float64) for n in (old, new))
            centres = ((end + 0.5) * (old / new) - 0.5).clamp(0, old - 1)
            weights = (1 - (centres - start[:, None]).abs()).clamp_min(0)  # (old, new)
            x = (x.movedim(axis, -1) @ weights.to(x.dtype)).movedim(-1, axis)
    return x


class NoSkip(nn.Module):
    """Takes the place of a ghost skip in a net without ghosts."""

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return z


@contextmanager
def without_ghosts(net: nn.Module) -> Iterator[None]:
    """Set the strength of all ghosts to 0 in the block, and restore it at the end."""
    strengths = {m: m.strength for m in net.modules() if isinstance(m, Ghost)}
    try:
        for ghost in strengths:
            ghost.fade(0)
        yield
    finally:
        for ghost, strength in strengths.items():
            ghost.fade(strength)


def make_activation(name: str) -> nn.Module:
    """Return a new activation: relu, swish, mish, or ghost (Swish that becomes ReLU)."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation '{name}': need one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def make_skip(
    kind: str | None,
    in_channels: int,
    out_channels: int,
    stride: int = 1,
    *,
    site: Site = "convolution",
) -> nn.Module:
    """Return the skip of a net for one of its sites: a ghost of this kind, or `NoSkip`.

    "KIND" puts ghosts around convolutions, before the activation; "KIND@block_output" around whole
    blocks, after their last activation.
    """
    if kind is None:
        return NoSkip()
    name, _, at = kind.partition("@")
    if name not in SKIPS or at not in ("", "block_output"):
        known = ", ".join(SKIPS)
        raise ValueError(f"skips '{kind}': need one of {known}, with @block_output or not, or none")
    if (at or "convolution") != site:
        return NoSkip()
    return GhostSkip(in_channels, out_channels, stride, name)
