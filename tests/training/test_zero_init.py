"""ZerO: matrices of zeros, ones and Hadamard signs, and a check for nets that start dead."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsediag import Checkpoint, Problem
from sparsediag.core.errors import ConfigError
from sparsediag.data import datasets
from sparsediag.models import build
from training.config import Run
from training.loop import fit
from training.zero_init import Orientation, check_trainable, initialise, matrix

SIDES = [1, 2, 3, 5, 8, 10, 12, 33, 64]
shapes = pytest.mark.parametrize(("outs", "ins"), list(itertools.product(SIDES, SIDES)))
both = pytest.mark.parametrize("widening", [True, False], ids=["widening", "narrowing"])


def net_of(name: str, init: Orientation = "zero_hadamard", **options: Any) -> nn.Module:
    net = build(name, **{"channels": 1} | options)
    initialise(net, init)
    return net


def digits(net: nn.Module) -> Problem:
    return Problem(net, datasets.load("digits").batches("train", images=128))


def top_is_dark(images: int = 64) -> list[tuple[Tensor, Tensor]]:
    """Normalised images of 28 x 28 with strokes in the middle, and 0 in most of the first rows."""
    chance = torch.Generator().manual_seed(0)
    pixels = torch.zeros(images, 1, 28, 28)
    pixels[:, :, 5:24, 5:24] = torch.rand(images, 1, 19, 19, generator=chance)
    pixels[: images // 8, :, 3, 5:15] = 1.0  # an eighth of the images reaches up there
    return [((pixels - 0.1307) / 0.3081, torch.arange(images) % 10)]


# one matrix


@shapes
@both
def test_entries_are_0_and_1_or_signs_of_one_size(outs: int, ins: int, widening: bool) -> None:
    w = matrix(outs, ins, widening=widening)
    assert w.shape == (outs, ins)
    if outs == ins or (outs > ins) != widening:
        assert torch.equal(w, torch.eye(outs, ins))
    else:
        m = next(m for m in range(10) if 2**m >= max(outs, ins))
        assert torch.allclose(w.abs(), torch.tensor(2 ** (-(m - 1) / 2)))


@pytest.mark.parametrize("side", SIDES)
@both
def test_a_square_is_the_identity(side: int, widening: bool) -> None:
    assert torch.equal(matrix(side, side, widening=widening), torch.eye(side))


@shapes
@both
def test_no_rank_is_lost(outs: int, ins: int, widening: bool) -> None:
    w = matrix(outs, ins, widening=widening).double()
    assert int(torch.linalg.matrix_rank(w)) == min(outs, ins)


@pytest.mark.parametrize("m", [1, 2, 5, 7])
def test_full_rows_are_orthogonal_with_square_2(m: int) -> None:
    narrow = matrix(2 ** (m - 1), 2**m, widening=False).double()
    assert torch.allclose(narrow @ narrow.T, 2 * torch.eye(len(narrow), dtype=torch.float64))
    wide = matrix(2**m, 2 ** (m - 1), widening=True).double()
    assert torch.allclose(wide.T @ wide, 2 * torch.eye(wide.shape[1], dtype=torch.float64))


@pytest.mark.parametrize(
    ("outs", "ins", "size"), [(100, 784, 2**-4.5), (10, 100, 0.125), (10, 512, 2**-4)]
)
def test_the_scales_of_the_pipeline_paper(outs: int, ins: int, size: float) -> None:
    w = matrix(outs, ins, widening=False)
    assert torch.equal(w.abs(), torch.full((outs, ins), size))
    assert (w[0] > 0).all()


def test_three_channels_widen_to_four_sign_patterns_of_sixteen_rows_each() -> None:
    patterns, counts = matrix(64, 3, widening=True).sign().unique(dim=0, return_counts=True)
    assert counts.tolist() == [16] * 4
    assert (patterns[:, 0] == 1).all()


def test_chance_has_no_part_in_it() -> None:
    weights = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = build("vgg16", width=4)
        state = torch.get_rng_state()
        initialise(net)
        assert torch.equal(torch.get_rng_state(), state)
        weights.append(net.state_dict())
    assert all(torch.equal(t, weights[1][name]) for name, t in weights[0].items())


# whole nets


@pytest.mark.parametrize("init", ["zero_hadamard", "zero_widening", "zero_narrowing"])
def test_a_convolution_has_its_matrix_at_the_centre_only(init: Orientation) -> None:
    net = net_of("vgg16_bn", init, width=5)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 13
    for conv in convolutions:
        outs, ins = conv.weight.shape[:2]
        centre = matrix(outs, ins, widening=init != "zero_narrowing")
        assert torch.equal(conv.weight[:, :, 1, 1], centre)
        assert int((conv.weight != 0).sum()) == int((centre != 0).sum())


@pytest.mark.parametrize(
    ("init", "signs"), [("zero_hadamard", True), ("zero_widening", False), ("zero_narrowing", True)]
)
def test_a_classifier_narrows_unless_it_is_told_to_widen(init: Orientation, signs: bool) -> None:
    w = net_of("vgg16", init, width=8).get_parameter("fc.weight")
    assert torch.equal(w, matrix(10, 64, widening=False) if signs else torch.eye(10, 64))


def test_a_convolution_of_one_tap_is_its_matrix() -> None:
    conv = nn.Conv2d(3, 8, 1)
    initialise(conv)
    assert torch.equal(conv.weight[:, :, 0, 0], matrix(8, 3, widening=True))


@pytest.mark.parametrize("name", ["resnet20", "vgg16_bn", "mobilenet", "mlp"])
def test_biases_are_0_and_norms_the_identity(name: str) -> None:
    for module in net_of(name, width=8).modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            assert not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()


# the check for networks that cannot train


@pytest.mark.parametrize(
    ("name", "options"),
    [("mlp", {"width": 12}), ("mlp", {}), ("vgg16", {"width": 5}), ("resnet20", {"width": 5})],
    ids=["narrow mlp", "mlp", "vgg16", "resnet20"],
)
def test_zero_fits_perceptrons_and_convolutions(name: str, options: dict[str, Any]) -> None:
    net = net_of(name, **options, size=8)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    check_trainable(digits(net))
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_three_rows_of_an_image_are_not_enough() -> None:
    check_trainable(Problem(net_of("mlp"), top_is_dark()))
    with pytest.raises(ConfigError) as refused:
        check_trainable(Problem(net_of("mlp", "zero_widening"), top_is_dark()))
    assert str(refused.value).startswith("the net would start dead: ")
    assert "of the activations of 'layers.0' are not 0. Use another init" in str(refused.value)


def test_a_convolution_that_sees_one_channel_for_ever_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"start dead: 1.6% of the activations of 'layers.7'"):
        check_trainable(digits(net_of("vgg16", "zero_narrowing", width=8)))


class First(nn.Module):
    """Lets one unit in ten through."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.arange(x.shape[1]) == 0)


def test_rows_without_a_gradient_are_refused() -> None:
    layers = [nn.Flatten(), nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 10)]
    net = nn.Sequential(*layers)
    initialise(net)
    check_trainable(digits(net))
    with pytest.raises(ConfigError, match=r"10.0% of the rows of '1.weight' have a gradient"):
        check_trainable(digits(nn.Sequential(*layers[:3], First(), layers[3])))


@pytest.mark.parametrize(
    "table",
    [
        {"init": "zero_narrowing", "model": {"name": "vgg16", "width": 8}},
        {"init": "zero_hadamard", "model": {"name": "lenet300"}},  # 64 rows of 300 see a pixel
    ],
    ids=["vgg16", "lenet300"],
)
def test_a_run_that_starts_dead_is_refused_in_one_line(
    table: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        fit(Run.of({"data": "digits"} | table), out=tmp_path, device="cpu")
    text = str(refused.value)
    assert "\n" not in text
    assert "would start dead" in text
    assert text.endswith("'default' is PyTorch's")
    assert not list(tmp_path.iterdir())


# in the training loop

TABLE = {
    "data": "digits",
    "init": "zero_hadamard",
    "model": {"name": "mlp", "width": 12},
    "optim": {"epochs": 3, "batch_size": 100, "lr": 0.05},
}


def test_a_net_learns_from_zero_and_twice_the_same(tmp_path: Path) -> None:
    ends = [
        Checkpoint.load(fit(Run.of(TABLE), out=tmp_path / name, device="cpu").with_name("last.pt"))
        for name in ("one", "two")
    ]
    assert ends[0].history[-1]["val_accuracy"] > 0.5
    assert all(torch.equal(t, ends[1].weights[name]) for name, t in ends[0].weights.items())


def test_seeds_give_the_same_first_weights(tmp_path: Path, starts: list[dict[str, Tensor]]) -> None:
    files = [fit(Run.of(TABLE | {"seed": s}), out=tmp_path, device="cpu") for s in (0, 1)]
    assert all(torch.equal(t, starts[1][name]) for name, t in starts[0].items())
    ends = [Checkpoint.load(file.with_name("last.pt")).weights for file in files]
    assert not torch.equal(ends[0]["fc.weight"], ends[1]["fc.weight"])


def test_a_mask_is_drawn_from_the_zeros_and_ones(tmp_path: Path) -> None:
    mask = {"method": "magnitude", "density": 0.5}
    run = Run.of(TABLE | {"mask": mask})
    assert run.plain().init == "zero_hadamard"
    kept = Checkpoint.load(fit(run, out=tmp_path, device="cpu").with_name("last.pt"))
    assert kept.mask is not None
    assert kept.mask.density == pytest.approx(0.5, abs=1e-3)


def test_a_ghost_skip_stays_as_it_is() -> None:
    net = build("resnet20", width=4, channels=1, skips="conv1x1_bn")
    before = {name: t.clone() for name, t in net.state_dict().items() if "ghost" in name}
    initialise(net)
    assert before
    assert all(torch.equal(t, net.state_dict()[name]) for name, t in before.items())
