"""Small nets, batches and masks for the tests of Watch, and the recipes of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sparsediag as sd

Batch = tuple[Tensor, Tensor]


class Transformer(nn.Module):
    """Embedding, one layer with dropout, and a classifier by function calls."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.head(self.layer(self.embedding(x)).mean(1)))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )


def resnet() -> nn.Module:
    return sd.models.build("resnet10", classes=3, channels=1, size=6, width=2)


def images(step: int, samples: int = 8) -> Batch:
    draw = torch.Generator().manual_seed(step)
    x = torch.randn(samples, 1, 6, 6, generator=draw)
    return x, torch.randint(0, 3, (samples,), generator=draw)


def tokens(step: int) -> Batch:
    draw = torch.Generator().manual_seed(step)
    x = torch.randint(0, 11, (8, 5), generator=draw)
    return x, torch.randint(0, 3, (8,), generator=draw)


def half(net: nn.Module) -> sd.Mask:
    """The larger half of the weights of each layer."""
    weights = {name: net.get_parameter(name).abs() for name in sd.prunable_weights(net)}
    return sd.Mask.top(weights, 0.5, scope="layer")


def recipe(word: str) -> str:
    """The code in docs/training-loop.md that has a word and needs another library."""
    page = Path(__file__).parent.parent / "docs" / "training-loop.md"
    blocks = re.findall(r"^```\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if word in block)
    return str(block)
