"""Multi-layer perceptrons: the pipeline paper's six linear layers, and LeNet-300-100."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from sparsediag.models.ghost import make_activation, make_skip


class Hidden(nn.Module):
    """A linear layer and its activation, with a ghost site if the width stays the same."""

    def __init__(self, in_channels: int, out_channels: int, act: str, skips: str | None) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, out_channels)
        skips = skips if in_channels == out_channels else None
        self.ghost = make_skip(skips, in_channels, out_channels)
        self.act = make_activation(act)
        self.ghost_out = make_skip(skips, in_channels, out_channels, site="block_output")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.ghost_out(self.act(self.ghost(self.fc(x), x)), x)
        return out


class MLP(nn.Module):
    """Hidden layers and a classifier over the flattened image.

    Args:
        hidden: Width of each hidden layer.
        classes: Number of outputs.
        channels: Channels of the images.
        size: Height and width of the images in pixels.
        width: Replaces every width in `hidden`, if given.
        activation: relu, swish, mish, or ghost.
        skips: Kind of the ghost skips, or none.
    """

    def __init__(
        self,
        *,
        hidden: Sequence[int],
        classes: int = 10,
        channels: int = 1,
        size: int = 28,
        width: int | None = None,
        activation: str = "relu",
        skips: str | None = None,
    ) -> None:
        super().__init__()
        if skips and skips.startswith("conv1x1_bn"):
            raise ValueError("skips 'conv1x1_bn' needs feature maps; a perceptron has none")
        make_skip(skips, 1, 1)  # refuse an unknown kind even if no layer has a site
        widths = [channels * size * size, *(width or h for h in hidden)]
        self.layers = nn.Sequential(*(Hidden(i, o, activation, skips) for i, o in pairwise(widths)))
        self.stages = [[f"layers.{i}"] for i in range(len(hidden))]
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.layers(x.flatten(1)))
        return out


NETS = {"mlp": partial(MLP, hidden=(100,) * 5), "lenet300": partial(MLP, hidden=(300, 100))}
