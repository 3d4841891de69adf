"""The nets against their published sizes, and the ghosts against closed forms."""

from __future__ import annotations

import io
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparsediag.core.prunable import prunable
from sparsediag.models import MODELS, SKIPS, Ghost, GhostReLU, GhostSkip, build
from sparsediag.models.ghost import interpolate, make_activation
from sparsediag.models.resnet import Block, PaddedShortcut

# net, options, parameters by classes, prunable weights, prunable tensors
COUNTS = [
    ("resnet6", {}, {10: 307_274}, 304_832, 6),
    ("resnet10", {}, {10: 4_903_242}, 4_892_352, 12),
    ("resnet18", {}, {10: 11_173_962, 100: 11_220_132, 200: 11_271_432}, 11_159_232, 20),
    ("resnet34", {}, {10: 21_282_122, 100: 21_328_292, 200: 21_379_592}, 21_259_968, 36),
    ("resnet50", {}, {10: 23_520_842, 100: 23_705_252, 200: 23_910_152}, 23_447_232, 53),
    ("resnet20", {"shortcut": "A"}, {10: 269_722, 100: 275_572}, 267_696, 19),
    ("resnet20", {"shortcut": "B"}, {10: 272_474, 100: 278_324}, 270_256, 21),
    ("resnet32", {"shortcut": "A"}, {10: 464_154, 100: 470_004}, 461_232, 31),
    ("resnet32", {"shortcut": "B"}, {10: 466_906, 100: 472_756}, 463_792, 33),
    ("resnet56", {"shortcut": "A"}, {10: 853_018, 100: 858_868}, 848_304, 55),
    ("resnet56", {"shortcut": "B"}, {10: 855_770, 100: 861_620}, 850_864, 57),
    ("resnet104", {"shortcut": "A"}, {10: 1_630_746, 100: 1_636_596}, 1_622_448, 103),
    ("resnet104", {"shortcut": "B"}, {10: 1_633_498, 100: 1_639_348}, 1_625_008, 105),
    ("resnet110", {"shortcut": "A"}, {10: 1_727_962, 100: 1_733_812}, 1_719_216, 109),
    ("resnet110", {"shortcut": "B"}, {10: 1_730_714, 100: 1_736_564}, 1_721_776, 111),
    ("resnet32", {"width": 32}, {10: 1_860_522, 100: 1_872_132, 200: 1_885_032}, 1_854_304, 33),
    ("resnet104", {"bottleneck": True}, {10: 1_611_418, 100: 1_634_548}, 1_585_072, 157),
    ("resnet110", {"bottleneck": True}, {10: 1_704_154, 100: 1_727_284}, 1_676_464, 166),
    ("vgg16", {}, {10: 14_719_818, 100: 14_765_988}, 14_710_464, 13),
    ("vgg16_bn", {}, {10: 14_728_266, 100: 14_774_436}, 14_710_464, 13),
    ("vgg16_bn", {"bias": False}, {10: 14_724_042}, 14_710_464, 13),
    ("mobilenet", {}, {10: 3_217_226, 100: 3_309_476}, 3_185_088, 27),
    ("mlp", {}, {10: 119_910}, 119_400, 6),
    ("mlp", {"hidden": (100,) * 6}, {10: 130_010}, 129_400, 7),
    ("lenet300", {}, {10: 266_610}, 266_200, 3),
]

GHOSTS = {  # ghost skips: one for each 3x3 convolution but the first, each depthwise, each 100-100
    "resnet18": 16,
    "resnet34": 32,
    "resnet50": 16,
    "resnet20": 18,
    "vgg16": 12,
    "vgg16_bn": 12,
    "mobilenet": 13,
    "mlp": 4,
    "lenet300": 0,
}

DEEP = ("resnet104", "resnet110")
PERCEPTRONS = ("mlp", "lenet300")
IDENTITIES = tuple(kind for kind in SKIPS if kind != "conv1x1_bn")
ADDED = tuple(kind for kind in SKIPS if kind not in ("average", "interpolate"))
HAUNTED = [(n, k) for n in MODELS for k in SKIPS if not (n in PERCEPTRONS and k == "conv1x1_bn")]
SHAPES = [(4, 4, 1), (3, 5, 1), (5, 3, 1), (4, 4, 2), (3, 5, 2), (5, 3, 2)]  # ins, outs, stride
LINE = torch.linspace(-8, 8, 160_001, dtype=torch.float64)


def _net(name: str, *, seed: int = 0, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    return build(name, **{"channels": 3, "size": 8, "width": 4, **options})


def _images(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def _settle(net: nn.Module, images: Tensor) -> nn.Module:
    """In evaluation, with the statistics of the images: a new narrow net forgets its input."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    net.train()(images)
    return net.eval()


def _fade(net: nn.Module, strength: float) -> None:
    for ghost in _ghosts(net).values():
        ghost.fade(strength)


def _ghosts(net: nn.Module) -> dict[str, Ghost]:
    return {name: m for name, m in net.named_modules() if isinstance(m, Ghost)}


def _count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def _slope(f: nn.Module, at: float) -> float:
    x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(f(x), x)[0].item()


# sizes


@pytest.mark.parametrize(("name", "options", "totals", "weights", "tensors"), COUNTS)
def test_parameter_counts(
    name: str, options: dict, totals: dict[int, int], weights: int, tensors: int
) -> None:
    for classes, total in totals.items():
        with torch.device("meta"):
            net = build(name, classes=classes, **options)
        names = prunable(net)
        assert _count(net) == total
        assert sum(net.get_parameter(n).numel() for n in names) == weights
        assert len(names) == tensors


def test_every_net_is_counted() -> None:
    assert {name for name, *_ in COUNTS} == set(MODELS)


def test_mobilenet_has_44640_depthwise_weights() -> None:
    with torch.device("meta"):
        net = build("mobilenet")
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.weight.numel() for m in convolutions if m.groups > 1) == 44_640


@pytest.mark.parametrize(("name", "sites"), GHOSTS.items())
def test_number_of_ghost_skips(name: str, sites: int) -> None:
    with torch.device("meta"):
        net = build(name, skips="identity_bn")
    assert len(_ghosts(net)) == sites


@pytest.mark.parametrize("kind", IDENTITIES)
@pytest.mark.parametrize("name", MODELS)
def test_identity_ghosts_add_no_parameters(name: str, kind: str) -> None:
    with torch.device("meta"):
        plain, haunted = build(name, width=4), build(name, width=4, activation="ghost", skips=kind)
    assert _ghosts(haunted)
    assert _count(haunted) == _count(plain)


def test_learned_ghosts_of_resnet18_add_1228288_parameters() -> None:
    with torch.device("meta"):
        added = _count(build("resnet18", skips="conv1x1_bn")) - _count(build("resnet18"))
    assert added == 1_228_288


# shapes


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 32])
@pytest.mark.parametrize("name", [n for n in MODELS if n not in DEEP])
def test_every_net_takes_every_image(name: str, size: int, channels: int) -> None:
    images = _images(2, channels, size, size, dtype=torch.float64)
    net = _net(name, size=size, channels=channels, classes=7).double()
    out = _settle(net, images)(images)
    assert out.shape == (2, 7)
    assert not torch.equal(out[0], out[1])


@pytest.mark.parametrize("name", DEEP)
def test_the_deep_nets_take_an_image(name: str) -> None:
    assert _net(name, bottleneck=True).eval()(_images(2, 3, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("name", MODELS)
def test_stages_name_the_blocks_of_the_net_in_order(name: str) -> None:
    with torch.device("meta"):
        net = build(name, width=4)
    blocks = [block for stage in net.stages for block in stage]
    order = [n for n, _ in net.named_modules() if n in blocks]
    assert all(net.stages)
    assert blocks == order
    for block in blocks:
        assert any(True for _ in net.get_submodule(block).parameters())


def test_resnet18_has_four_stages_of_two() -> None:
    net = _net("resnet18")
    assert net.stages == [[f"layer{i}.{j}" for j in (0, 1)] for i in (1, 2, 3, 4)]


# ghosts in a net


@pytest.mark.parametrize(("name", "kind"), HAUNTED)
def test_a_ghost_changes_the_net_until_it_is_gone(name: str, kind: str) -> None:
    plain, haunted = _net(name), _net(name, activation="ghost", skips=kind)
    images, state = _images(2, 3, 8, 8), haunted.state_dict()
    assert all(torch.equal(t, state[key]) for key, t in plain.state_dict().items())

    for net in (plain, haunted):
        _settle(net, images)
    assert not torch.equal(haunted(images), plain(images))
    haunted.load_state_dict(plain.state_dict(), strict=False)
    _fade(haunted, 0)
    assert torch.equal(haunted(images), plain(images))
    assert torch.equal(haunted.train()(images), plain.train()(images))
    state = haunted.state_dict()
    assert all(torch.equal(t, state[key]) for key, t in plain.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_a_ghost_at_a_block_output_is_added_behind_the_activation(name: str) -> None:
    plain, haunted = _net(name).eval(), _net(name, skips="interpolate@block_output").eval()
    seen: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for block, ghost in _ghosts(haunted).items():
        ghost.fade(0.25)
        ghost.register_forward_hook(lambda m, a, out, block=block: seen.update({block: (*a, out)}))
    images = _images(2, 3, 8, 8)
    assert not torch.equal(haunted(images), plain(images))
    assert all(name.endswith(".ghost_out") for name in _ghosts(haunted))
    assert seen.keys() == _ghosts(haunted).keys() != set()
    for z, x, out in seen.values():
        assert not (z < 0).any()  # it is behind a ReLU
        ghost = GhostSkip(x.shape[1], z.shape[1], x.shape[-1] // z.shape[-1], "interpolate")
        torch.testing.assert_close(out, z + 0.25 * ghost.path(x))
    _fade(haunted, 0)
    assert torch.equal(haunted(images), plain(images))


def test_an_unknown_site_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^skips 'identity@stem': need one of"):
        build("resnet20", skips="identity@stem")


@pytest.mark.parametrize("kind", SKIPS)
def test_a_ghost_skip_alone_changes_the_net(kind: str) -> None:
    plain, haunted = _net("resnet20").eval(), _net("resnet20", skips=kind).eval()
    images = _images(2, 3, 8, 8)
    assert not torch.equal(haunted(images), plain(images))


@pytest.mark.parametrize("name", ["resnet20", "resnet50", "vgg16", "mobilenet", "mlp"])
def test_a_state_dict_restores_every_strength(name: str) -> None:
    net = _net(name, activation="ghost", skips="identity_bn").eval()
    for i, ghost in enumerate(_ghosts(net).values()):
        ghost.fade(0.3 + 0.7 / (i + 1))
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    fresh = _net(name, seed=1, activation="ghost", skips="identity_bn").eval()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    strengths = {n: g.strength for n, g in _ghosts(fresh).items()}
    assert strengths == {n: g.strength for n, g in _ghosts(net).items()}
    assert len(set(strengths.values())) == len(strengths)
    images = _images(2, 3, 8, 8)
    assert torch.equal(fresh(images), net(images))


@pytest.mark.parametrize("strength", [1.5, -0.1, float("nan")])
def test_fade_refuses_a_strength_that_cannot_be(strength: float) -> None:
    ghost = GhostReLU()
    with pytest.raises(ValueError, match=r"need a number in \[0, 1\]"):
        ghost.fade(strength)
    assert ghost.strength == 1


# ghost activations: closed forms


def test_a_full_ghost_is_swish() -> None:
    torch.testing.assert_close(GhostReLU()(LINE), F.silu(LINE), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("strength", [1, 0.5, 0.1, 0.01])
def test_a_ghost_has_slope_one_half_at_zero(strength: float) -> None:
    ghost = GhostReLU()
    ghost.fade(strength)
    assert _slope(ghost, 0) == pytest.approx(0.5)


@pytest.mark.parametrize("strength", [1, 0.5, 0.1])
def test_a_ghost_is_near_relu(strength: float) -> None:
    ghost = GhostReLU()
    ghost.fade(strength)
    gap = (F.relu(LINE) - ghost(LINE)).abs()
    assert gap.max().item() == pytest.approx(0.278465 * strength, rel=1e-5)
    assert abs(LINE[gap.argmax()].item()) == pytest.approx(1.27846 * strength, abs=1e-4)


def test_a_ghost_of_no_strength_is_relu() -> None:
    ghost = GhostReLU()
    ghost.fade(0)
    assert torch.equal(ghost(LINE), F.relu(LINE))


def test_values_of_swish_and_mish() -> None:
    one = torch.ones((), dtype=torch.float64)
    assert make_activation("swish")(one).item() == pytest.approx(0.731059, abs=1e-6)
    assert make_activation("mish")(one).item() == pytest.approx(0.865098, abs=1e-6)
    assert _slope(make_activation("mish"), 0) == pytest.approx(math.tanh(math.log(2)))
    assert _slope(make_activation("mish"), 0) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("name", "lowest", "at"), [("swish", -0.278465, -1.27846), ("mish", -0.308843, -1.19243)]
)
def test_minima_of_swish_and_mish(name: str, lowest: float, at: float) -> None:
    values = make_activation(name)(LINE)
    assert values.min().item() == pytest.approx(lowest, abs=1e-6)
    assert LINE[values.argmin()].item() == pytest.approx(at, abs=1e-4)


# ghost skips: shapes and closed forms


class _Operations(TorchDispatchMode):
    """The names of all operations that are made inside, backward ones too."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.add(func._schema.name.partition("::")[2])
        return func(*args, **(kwargs or {}))


def _mixed(ghost: GhostSkip, z: Tensor, x: Tensor) -> Tensor:
    """What a skip gives, in its own words."""
    added = z + ghost.strength * ghost.path(x)
    return added / (1 + ghost.strength) if ghost.kind == "average" else added


@pytest.mark.parametrize("kind", SKIPS)
@pytest.mark.parametrize("size", [1, 7, 8])
@pytest.mark.parametrize(("ins", "outs", "stride"), SHAPES)
def test_a_skip_has_the_shape_of_its_convolution(
    ins: int, outs: int, stride: int, size: int, kind: str
) -> None:
    x = _images(2, ins, size, size)
    z = nn.Conv2d(ins, outs, 3, stride, padding=1)(x)
    ghost = GhostSkip(ins, outs, stride, kind)
    assert ghost(z, x).shape == z.shape
    assert torch.equal(ghost(z, x), _mixed(ghost, z, x))
    if kind in ADDED:
        assert torch.equal(ghost(z, x), z + ghost.path(x))


@pytest.mark.parametrize("strength", [1, 0.5, 0.01])
@pytest.mark.parametrize(("ins", "outs", "stride"), SHAPES)
def test_the_average_skip_weighs_its_two_signals(
    ins: int, outs: int, stride: int, strength: float
) -> None:
    x = torch.arange(1.0, ins + 1)[None, :, None, None].expand(2, ins, 7, 7)
    z = nn.Conv2d(ins, outs, 3, stride, padding=1)(x)
    ghost = GhostSkip(ins, outs, stride, "average")
    ghost.fade(strength)
    path = torch.tensor([c + 1.0 if c < ins else 0.0 for c in range(outs)])[None, :, None, None]
    torch.testing.assert_close(ghost(z, x), (z + strength * path) / (1 + strength))


def test_the_average_of_a_signal_with_itself_is_that_signal() -> None:
    for x in (_images(2, 4, 3, 3), _images(2, 4)):
        ghost = GhostSkip(4, 4, 1, "average")
        for strength in (1, 0.3, 0):
            ghost.fade(strength)
            torch.testing.assert_close(ghost(x, x), x)


@pytest.mark.parametrize("strength", [1, 0.25])
@pytest.mark.parametrize(("ins", "outs", "stride"), SHAPES)
def test_the_interpolating_skip_is_trilinear(
    ins: int, outs: int, stride: int, strength: float
) -> None:
    x = _images(2, ins, 7, 7)
    z = nn.Conv2d(ins, outs, 3, stride, padding=1)(x)
    ghost = GhostSkip(ins, outs, stride, "interpolate")
    ghost.fade(strength)
    resized = F.interpolate(x[:, None], size=tuple(z.shape[1:]), mode="trilinear")[:, 0]
    torch.testing.assert_close(ghost(z, x), z + strength * resized)
    flat = torch.full_like(x, 3.0)
    torch.testing.assert_close(ghost(z, flat), z + 3 * strength)


def test_the_interpolating_skip_halves_and_doubles_by_hand() -> None:
    x = torch.tensor([0.0, 2.0])[None, :, None, None].expand(1, 2, 1, 1)
    wide, narrow = (GhostSkip(2, n, 1, "interpolate")(torch.zeros(1, n, 1, 1), x) for n in (4, 1))
    assert wide.flatten().tolist() == [0, 0.5, 1.5, 2]
    assert narrow.flatten().tolist() == [1]


@pytest.mark.parametrize("shape", [(2, 4, 7, 7), (2, 4, 1, 1), (2, 4)])
def test_interpolation_to_the_same_shape_is_the_identity(shape: tuple[int, ...]) -> None:
    x, z = _images(*shape), torch.ones(shape)
    assert torch.equal(GhostSkip(4, 4, 1, "interpolate")(z, x), z + x)


def test_the_interpolating_skip_of_a_perceptron_is_linear() -> None:
    x, ghost = _images(3, 6), GhostSkip(6, 9, 1, "interpolate")
    resized = F.interpolate(x[:, None], size=9, mode="linear")[:, 0]
    torch.testing.assert_close(ghost(torch.zeros(3, 9), x), resized)


@pytest.mark.parametrize("new", [(5, 4, 4), (2, 3, 1), (3, 7, 9), (9, 14, 8), (1, 1, 1)])
@pytest.mark.parametrize("old", [(3, 7, 8), (8, 5, 5), (1, 2, 1)])
def test_interpolation_is_that_of_torch_with_its_gradient(
    old: tuple[int, ...], new: tuple[int, ...]
) -> None:
    x = _images(2, *old).double().requires_grad_()
    ours = interpolate(x, new)
    theirs = F.interpolate(x[:, None], size=new, mode="trilinear")[:, 0]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    weights = torch.randn(theirs.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    slopes = (torch.autograd.grad(y, x, weights)[0] for y in (ours, theirs))
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


def test_interpolation_has_two_derivatives_and_no_kernel_that_adds_in_any_order() -> None:
    x = _images(2, 3, 5, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: interpolate(x, (4, 3, 7)), x)
    assert torch.autograd.gradgradcheck(lambda x: interpolate(x, (4, 3, 7)), x)
    with _Operations() as seen:
        interpolate(x, (4, 3, 7)).sum().backward()
    assert seen.names & {"mm", "bmm"}
    assert not [n for n in seen.names if "upsample" in n or "index" in n or "scatter" in n]


@pytest.mark.parametrize("kind", ["average", "interpolate"])
@pytest.mark.parametrize(("ins", "outs", "stride"), SHAPES)
def test_a_mixing_skip_of_no_strength_is_z_itself(
    ins: int, outs: int, stride: int, kind: str
) -> None:
    x = _images(2, ins, 7, 7)
    z = nn.Conv2d(ins, outs, 3, stride, padding=1)(x)
    ghost = GhostSkip(ins, outs, stride, kind)
    assert not list(ghost.parameters())
    ghost.fade(0)
    assert ghost(z, x) is z


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("ins", "outs", "stride"), SHAPES)
def test_a_bare_skip_averages_and_pads_or_cuts(ins: int, outs: int, stride: int, size: int) -> None:
    x = torch.arange(1.0, ins + 1)[None, :, None, None].expand(2, ins, size, size)
    path = GhostSkip(ins, outs, stride, "identity").path(x)
    expected = torch.tensor([c + 1.0 if c < ins else 0.0 for c in range(outs)])
    torch.testing.assert_close(path, expected[None, :, None, None].expand(path.shape))


@pytest.mark.parametrize("shape", [(3, 6, 8, 8), (3, 6, 7, 7), (3, 6)])
def test_the_rms_skip_has_unit_rms(shape: tuple[int, ...]) -> None:
    outs, stride = (9, 2) if len(shape) == 4 else (6, 1)
    path = GhostSkip(6, outs, stride, "identity_rms").path(100 * _images(*shape))
    torch.testing.assert_close(path.flatten(1).square().mean(1), torch.ones(3))


@pytest.mark.parametrize("shape", [(8, 5, 6, 6), (8, 5)])
def test_the_bn_skip_has_unit_variance_in_each_channel(shape: tuple[int, ...]) -> None:
    path = GhostSkip(5, 5, 1, "identity_bn").path(100 * _images(*shape) + 7)
    channels = path.transpose(0, 1).flatten(1)
    torch.testing.assert_close(channels.mean(1), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(channels.var(1, correction=0), torch.ones(5))


def test_a_skip_is_linear_in_its_strength() -> None:
    ghost = GhostSkip(4, 4, 1, "identity")
    ghost.fade(0.25)
    z, x = _images(2, 4, 3, 3), torch.ones(2, 4, 3, 3)
    assert torch.equal(ghost(z, x), z + 0.25)


@pytest.mark.parametrize("kind", SKIPS)
def test_a_skip_of_no_strength_does_not_look_at_its_input(kind: str) -> None:
    ghost, z = GhostSkip(4, 4, 1, kind), _images(2, 4, 3, 3)
    ghost.fade(0)
    assert torch.equal(ghost(z, torch.full_like(z, torch.inf)), z)
    assert all(t.isfinite().all() for t in ghost.state_dict().values())


def test_padded_shortcut_takes_every_other_pixel_and_pads_both_sides() -> None:
    x = _images(2, 4, 7, 7)
    out = PaddedShortcut(4, 8, 2)(x)
    zeros = torch.zeros(2, 2, 4, 4)
    assert torch.equal(out, torch.cat([zeros, x[:, :, ::2, ::2], zeros], 1))


def _pruned_block(ins: int, outs: int, stride: int, kind: str, act: str = "relu") -> Block:
    torch.manual_seed(0)
    block = Block(ins, outs, stride, "B", act, kind)
    with torch.no_grad():
        block.conv1.weight.zero_()
        block.conv2.weight.zero_()
        block.bn1.bias.uniform_(-1, 1)
        block.bn2.bias.uniform_(-1, 1)
    return block


@pytest.mark.parametrize(("ins", "outs", "stride"), [(4, 4, 1), (4, 8, 2)])
def test_a_fully_pruned_block_passes_its_input_on(ins: int, outs: int, stride: int) -> None:
    block, x = _pruned_block(ins, outs, stride, "identity"), _images(2, ins, 7, 7)
    b1, b2 = (bn.bias[:, None, None] for bn in (block.bn1, block.bn2))
    skipped = x if stride == 1 else F.avg_pool2d(x, 2, ceil_mode=True)
    skipped = torch.cat([skipped, torch.zeros_like(skipped).repeat(1, outs // ins - 1, 1, 1)], 1)
    expected = F.relu(b2 + block.shortcut(x) + F.relu(b1 + skipped))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("kind", SKIPS)
@pytest.mark.parametrize(("ins", "outs", "stride"), [(4, 4, 1), (4, 8, 2)])
def test_every_kind_follows_the_formula_in_a_fully_pruned_block(
    ins: int, outs: int, stride: int, kind: str
) -> None:
    block, x = _pruned_block(ins, outs, stride, kind, "ghost"), _images(2, ins, 7, 7)
    b1, b2 = (bn.bias[:, None, None] for bn in (block.bn1, block.bn2))
    z = block.conv1(x)  # 0 everywhere
    h = F.silu(_mixed(block.ghost1, z + b1, x))
    expected = F.silu(_mixed(block.ghost2, z + b2, h) + block.shortcut(x))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("kind", SKIPS)
@pytest.mark.parametrize("strength", [1, 0.01, 0])
def test_gradient_passes_a_fully_pruned_convolution_only_through_its_ghost(
    strength: float, kind: str
) -> None:
    block, seen = _pruned_block(4, 4, 1, kind), []
    _fade(block, strength)
    block.act1.register_forward_hook(lambda module, args, h: seen.append(h))
    loss = block(_images(2, 4, 7, 7)).square().sum()
    (gradient,) = torch.autograd.grad(loss, seen)  # h, the input of the second convolution
    assert bool(gradient.any()) == (strength > 0)


# refusals


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet19", {}, "unknown model 'resnet19'; did you mean 'resnet1.*Known: .*vgg16"),
        ("resnet18", {"widht": 4}, "option of resnet18 'widht'; did you mean 'width'"),
        ("vgg16", {"bottleneck": True}, "option of vgg16 'bottleneck'.*Known: .*norm"),
        ("resnet18", {"activation": "gelu"}, "activation 'gelu': need one of relu, swish, mish"),
        ("mlp", {"activation": "gelu"}, "activation 'gelu': need one of relu, swish, mish"),
        ("vgg16", {"skips": "identiy"}, "skips 'identiy': need one of identity_bn"),
        ("mlp", {"skips": "identiy"}, "skips 'identiy': need one of identity_bn"),
        (
            "lenet300",
            {"skips": "identiy", "width": None},
            "skips 'identiy': need one of identity_bn",
        ),
        ("resnet18", {"shortcut": "C"}, "shortcut 'C': need 'A'.*or 'B'"),
        ("mlp", {"skips": "conv1x1_bn"}, "needs feature maps; a perceptron has none"),
        ("lenet300", {"skips": "conv1x1_bn"}, "needs feature maps; a perceptron has none"),
    ],
)
def test_build_refuses_and_says_what_there_is(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **{"width": 4, **options})


def test_size_matters_to_perceptrons_alone() -> None:
    assert _count(_net("resnet20", size=8)) == _count(_net("resnet20", size=32))
    assert _count(_net("mlp", size=9)) - _count(_net("mlp", size=8)) == 4 * 3 * (81 - 64)
