"""A trusted structure treats each sample by itself; others are measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sparsediag import Problem
from sparsediag.core.rowwise import ACTIVATIONS, OF_IMAGES, OF_ROWS, is_chain_of_rowwise_layers
from tests import cases

ROWS, IMAGES = torch.randn(6, 4), torch.randn(6, 3, 5, 5)
SIZES = {nn.Linear: (4, 2), nn.LayerNorm: (4,), nn.BatchNorm1d: (4,)}
SIZES |= {nn.Conv2d: (3, 2, 3), nn.BatchNorm2d: (3,), nn.MaxPool2d: (2,), nn.AvgPool2d: (2,)}
SIZES |= {nn.AdaptiveAvgPool2d: (1,)}


@pytest.mark.parametrize("kind", [*OF_ROWS, *OF_IMAGES])
def test_a_trusted_layer_computes_each_sample_by_itself(kind: type[nn.Module]) -> None:
    x = IMAGES if kind in OF_IMAGES else ROWS
    net = nn.Sequential(kind(*SIZES.get(kind, ()))).eval()
    assert is_chain_of_rowwise_layers(net, x)
    parts = torch.cat([net(x[:1]), net(x[1:4]), net(x[4:])])
    torch.testing.assert_close(net(x), parts)


def hooked() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 3))
    net[0].register_forward_hook(lambda module, inputs, z: z - z.mean(0))
    return net


class Centred(nn.Linear):
    """A layer that looks at all samples."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


COUPLED: dict[str, Callable[[], nn.Module]] = {
    "hook": hooked,
    "subclass": lambda: nn.Sequential(Centred(4, 3)),
    "batch statistics": lambda: nn.Sequential(
        nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)
    ),
    "softmax": lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(0)),
    "flatten": lambda: nn.Sequential(nn.Flatten(0), nn.Linear(24, 18), nn.Unflatten(0, (6, 3))),
}


@pytest.mark.parametrize("name", COUPLED)
def test_what_looks_at_other_samples_is_found(name: str) -> None:
    net = COUPLED[name]().double().eval()
    problem = Problem(net, cases.classes((6,), (4,), 3))
    assert not is_chain_of_rowwise_layers(net, problem.batches[0][0])
    assert not problem.separable


def test_images_need_four_dimensions() -> None:
    """An image without a batch goes through a convolution, whose channels see each other."""
    net = nn.Sequential(nn.Conv2d(3, 3, 3), *(kind() for kind in ACTIVATIONS))
    assert is_chain_of_rowwise_layers(net, IMAGES)
    assert not is_chain_of_rowwise_layers(net, IMAGES[0])
    assert not is_chain_of_rowwise_layers(net, (IMAGES,))
