"""Which weights a mask covers where nobody says."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from sparsediag.core.prunable import prunable, to_oihw, weight_matrices
from sparsediag.models import build


class Tied(nn.Module):
    """A language model in miniature, whose last layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.norm = nn.LayerNorm(8)
        self.query = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embed.weight


def _cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(4, 2)
    )


def test_prunable_of_a_cnn_leaves_norms_biases_and_the_classifier_out() -> None:
    assert prunable(_cnn()) == ["0.weight", "2.weight"]


def test_prunable_of_a_resnet_has_the_stem_and_the_shortcuts() -> None:
    names = prunable(build("resnet18", width=4))
    assert len(names) == 20
    assert {"conv1.weight", "layer2.0.shortcut.0.weight"} <= set(names)


def test_prunable_of_a_perceptron_has_every_layer() -> None:
    net = build("lenet300", width=4)
    assert prunable(net) == ["layers.0.fc.weight", "layers.1.fc.weight", "fc.weight"]


def test_prunable_of_a_transformer_layer_has_its_linear_layers() -> None:
    names = prunable(nn.TransformerEncoderLayer(8, 2, 16))
    assert {"self_attn.out_proj.weight", "linear1.weight", "linear2.weight"} <= set(names)
    assert not any("norm" in name or "bias" in name for name in names)


def test_prunable_goes_by_the_name_that_named_parameters_gives() -> None:
    assert prunable(Tied()) == ["query.weight"]  # no embedding, though a layer shares it
    assert prunable(nn.Conv2d(1, 1, 1)) == ["weight"]


def test_prunable_names_a_shared_weight_once() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    net[1].weight = net[0].weight
    assert prunable(net) == ["0.weight", "2.weight"]


def test_prunable_leaves_ghosts_out() -> None:
    plain, ghosts = build("resnet20", width=4), build("resnet20", width=4, skips="conv1x1_bn")
    assert prunable(ghosts) == prunable(plain)


def test_prunable_of_a_vision_transformer_has_patches_and_all_its_layers() -> None:
    net = torchvision.models.VisionTransformer(32, 16, 2, 2, 8, 16, num_classes=3)
    names = prunable(net)
    assert names[0] == "conv_proj.weight"
    ends = {name.rpartition("encoder_layer_")[2] for name in names[1:]}
    layers = ("self_attention.out_proj", "mlp.0", "mlp.3")
    assert ends == {f"{i}.{layer}.weight" for i in range(2) for layer in layers} | {
        "heads.head.weight"
    }


@pytest.mark.parametrize(("convolutions", "layers", "covered"), [(2, 1, 2), (2, 2, 2), (2, 3, 5)])
def test_prunable_has_linear_layers_where_there_are_more_of_them(
    convolutions: int, layers: int, covered: int
) -> None:
    parts = [nn.Conv2d(1, 1, 1) for _ in range(convolutions)]
    net = nn.Sequential(*parts, *(nn.Linear(2, 2) for _ in range(layers)))
    assert prunable(net) == [f"{i}.weight" for i in range(covered)]


def _gpt2(into: int, out: int) -> nn.Module:
    return pytest.importorskip("transformers.pytorch_utils").Conv1D(out, into)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Linear(4, 6), (4,)),
        (nn.Conv2d(4, 6, 2, groups=2), (4, 3, 3)),
        (nn.ConvTranspose2d(4, 6, 2), (4, 3, 3)),
        (nn.ConvTranspose1d(4, 6, 2, groups=2), (4, 3)),
        (nn.ConvTranspose1d(4, 4, 2, groups=4), (4, 3)),
        (_gpt2(4, 6), (4,)),
    ],
)
def test_a_row_of_an_upright_weight_is_what_its_output_sees(
    layer: nn.Module, size: tuple[int, ...]
) -> None:
    turned, weight = to_oihw(nn.Sequential(layer)), layer.weight
    places = torch.arange(weight.numel()).view_as(weight)
    rows = turned("0.weight", places)
    out = layer(torch.rand(1, *size) + 1)
    assert len(rows) == out.shape[1]
    for row, one in zip(rows, out[0], strict=True):
        (slope,) = torch.autograd.grad(one.sum(), weight, retain_graph=True)
        assert row.flatten().sort().values.tolist() == places[slope != 0].tolist()
    assert torch.equal(turned("0.weight", rows), places)
    assert turned("0.bias", layer.bias) is layer.bias


def test_matrices_are_the_prunable_weights_of_most_nets() -> None:
    for net in (_cnn(), Tied(), build("resnet20", width=4, skips="conv1x1_bn")):
        assert weight_matrices(net) == prunable(net)


def test_matrices_of_attention_beside_convolutions() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.MultiheadAttention(4, 2), nn.Linear(4, 2))
    names = ["0.weight", "1.in_proj_weight", "1.out_proj.weight", "2.weight"]
    assert weight_matrices(net) == names
