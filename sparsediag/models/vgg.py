"""VGG-16 for small images (Simonyan and Zisserman, 2015): 13 convolutions and one linear layer."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from sparsediag.models.ghost import make_activation, make_skip

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class Convolution(nn.Module):
    """A 3x3 convolution, an optional norm, a ghost site (except in the first), an activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: bool,
        bias: bool,
        act: str,
        skips: str | None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
        self.bn = nn.BatchNorm2d(out_channels) if norm else nn.Identity()
        self.ghost = make_skip(skips, in_channels, out_channels)
        self.act = make_activation(act)
        self.ghost_out = make_skip(skips, in_channels, out_channels, site="block_output")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.ghost_out(self.act(self.ghost(self.bn(self.conv(x)), x)), x)
        return out


class VGG(nn.Module):
    """Five stages with max-pools between them, a global average pool, a linear classifier.

    Args:
        classes: Number of outputs.
        channels: Channels of the images, 1 or 3.
        width: Channels of the first stage (the last has eight times as many).
        norm: Batch norm after every convolution.
        bias: Biases in the convolutions; the published nets have them even with batch norm.
        activation: relu, swish, mish, or ghost.
        skips: Kind of the ghost skips, or none.
    """

    def __init__(
        self,
        *,
        classes: int = 10,
        channels: int = 3,
        width: int = 64,
        norm: bool = False,
        bias: bool = True,
        activation: str = "relu",
        skips: str | None = None,
    ) -> None:
        super().__init__()
        in_channels, layers = channels, nn.ModuleList()
        self.stages: list[list[str]] = []
        for sizes in STAGES:
            first = len(layers)
            for size in sizes:
                out_channels = size * width // 64
                block_skips = skips if layers else None
                layers.append(
                    Convolution(
                        in_channels,
                        out_channels,
                        norm=norm,
                        bias=bias,
                        act=activation,
                        skips=block_skips,
                    )
                )
                in_channels = out_channels
            self.stages.append([f"layers.{i}" for i in range(first, len(layers))])
        self.layers = layers
        self.pool = nn.MaxPool2d(2, ceil_mode=True)  # rounding up lets 8 x 8 images through
        self.fc = nn.Linear(in_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        for i, stage in enumerate(self.stages):
            if i > 0:
                x = self.pool(x)
            for name in stage:
                x = self.get_submodule(name)(x)
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


NETS = {"vgg16": VGG, "vgg16_bn": partial(VGG, norm=True)}
