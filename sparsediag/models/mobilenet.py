"""MobileNet v1 for small images (Howard et al., 2017): depthwise and pointwise convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from sparsediag.models.ghost import make_activation, make_skip

# channels after each block over the stem's 32, and the block's stride
BLOCKS = ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *[(16, 1)] * 5, (32, 2), (32, 1))


class Separable(nn.Module):
    """A depthwise 3x3 convolution with a ghost site, then a pointwise one."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, act: str, skips: str | None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False
        )
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.ghost1 = make_skip(skips, in_channels, in_channels, stride)
        self.act1 = make_activation(act)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = make_activation(act)
        self.ghost_out = make_skip(skips, in_channels, out_channels, stride, site="block_output")

    def forward(self, x: Tensor) -> Tensor:
        h = self.act1(self.ghost1(self.bn1(self.conv1(x)), x))
        out: Tensor = self.ghost_out(self.act2(self.bn2(self.conv2(h))), x)
        return out


class MobileNet(nn.Module):
    """A stem of stride 1, 13 separable blocks, a global pool, a classifier.

    Args:
        classes: Number of outputs.
        channels: Channels of the images, 1 or 3.
        width: Channels of the stem (the last block has 32 times as many).
        activation: relu, swish, mish, or ghost.
        skips: Kind of the ghost skips, or none.
    """

    def __init__(
        self,
        *,
        classes: int = 10,
        channels: int = 3,
        width: int = 32,
        activation: str = "relu",
        skips: str | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = make_activation(activation)
        blocks, in_channels = [], width
        self.stages: list[list[str]] = [[]]
        for i, (growth, stride) in enumerate(BLOCKS):
            blocks.append(Separable(in_channels, width * growth, stride, activation, skips))
            in_channels = width * growth
            if stride > 1:
                self.stages.append([])
            self.stages[-1].append(f"blocks.{i}")
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(in_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.act1(self.bn1(self.conv1(x))))
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


NETS = {"mobilenet": MobileNet}
