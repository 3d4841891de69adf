"""Residual nets for small images (He et al., CVPR 2016), in the two CIFAR families.

`resnet6`: two stages of 64 and 128 channels, for quick trials.
`resnet10/18/34/50`: four stages of 64 to 512 channels, as in the ToST code.
`resnet20/32/56/104/110`: three stages of 16 to 64 channels, 6n + 2 layers. Neither has a max-pool
after the stem, and both pool globally, so images may have any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag.models.ghost import make_activation, make_skip

Shortcut = Literal["A", "B"]


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, with a ghost site at each convolution."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shortcut: Shortcut,
        act: str,
        skips: str | None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.ghost1 = make_skip(skips, in_channels, width, stride)
        self.act1 = make_activation(act)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.ghost2 = make_skip(skips, width, width)
        self.shortcut = _make_shortcut(in_channels, width, stride, shortcut)
        self.act2 = make_activation(act)
        self.ghost_out = make_skip(skips, in_channels, width, stride, site="block_output")

    def forward(self, x: Tensor) -> Tensor:
        h = self.act1(self.ghost1(self.bn1(self.conv1(x)), x))
        z: Tensor = self.ghost2(self.bn2(self.conv2(h)), h)
        out: Tensor = self.ghost_out(self.act2(z + self.shortcut(x)), x)
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the ghost site is the 3x3 one."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shortcut: Shortcut,
        act: str,
        skips: str | None,
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = make_activation(act)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.ghost2 = make_skip(skips, width, width, stride)
        self.act2 = make_activation(act)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = _make_shortcut(in_channels, out_channels, stride, shortcut)
        self.act3 = make_activation(act)
        self.ghost_out = make_skip(skips, in_channels, out_channels, stride, site="block_output")

    def forward(self, x: Tensor) -> Tensor:
        h = self.act1(self.bn1(self.conv1(x)))
        h = self.act2(self.ghost2(self.bn2(self.conv2(h)), h))
        out: Tensor = self.ghost_out(self.act3(self.bn3(self.conv3(h)) + self.shortcut(x)), x)
        return out


class PaddedShortcut(nn.Module):
    """Option A: every `stride`-th pixel, new channels filled with zeros on both sides."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = out_channels - in_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        front = self.extra // 2
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, front, self.extra - front))


def _make_shortcut(in_channels: int, out_channels: int, stride: int, option: Shortcut) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if option == "A":
        return PaddedShortcut(in_channels, out_channels, stride)
    if option != "B":
        raise ValueError(f"shortcut '{option}': need 'A' (padding) or 'B' (1x1 convolution)")
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class ResNet(nn.Module):
    """A stem, stages `layer1`, `layer2`, ... that double the width, a global pool, a classifier.

    Args:
        blocks: Number of blocks in each stage.
        classes: Number of outputs.
        channels: Channels of the images, 1 or 3.
        width: Channels of the first stage.
        bottleneck: Build the stages of bottlenecks (with four times the width outside).
        shortcut: "A" pads with zeros, "B" learns a 1x1 convolution.
        activation: relu, swish, mish, or ghost.
        skips: Kind of the ghost skips, or none.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        classes: int = 10,
        channels: int = 3,
        width: int = 64,
        bottleneck: bool = False,
        shortcut: Shortcut = "B",
        activation: str = "relu",
        skips: str | None = None,
    ) -> None:
        super().__init__()
        block = Bottleneck if bottleneck else Block
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = make_activation(activation)
        in_channels = width
        self.stages: list[list[str]] = []
        for i, depth in enumerate(blocks):
            stage = []
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(block(in_channels, width * 2**i, stride, shortcut, activation, skips))
                in_channels = width * 2**i * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
            self.stages.append([f"layer{i + 1}.{j}" for j in range(depth)])
        self.fc = nn.Linear(in_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        for i in range(len(self.stages)):
            x = self.get_submodule(f"layer{i + 1}")(x)
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


NETS = {
    "resnet6": partial(ResNet, (1, 1)),
    "resnet10": partial(ResNet, (1, 1, 1, 1)),
    "resnet18": partial(ResNet, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, (3, 4, 6, 3), bottleneck=True),
    **{f"resnet{6 * n + 2}": partial(ResNet, (n, n, n), width=16) for n in (3, 5, 9, 17, 18)},
}
