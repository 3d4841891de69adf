"""Shares of zeros against closed forms, and the modules that they are measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsediag import Activations, Problem, activations, models
from sparsediag.models import MODELS, GhostReLU

FLAT = torch.linspace(-1, 1, 100_001)
BELL = torch.special.ndtri((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000).float()


def through(act: nn.Module, **others: nn.Module) -> cases.Net:
    """The input through one activation."""
    return cases.Net(lambda net, x: net.act(net.weight * x), act=act, **others)


def of(net: nn.Module, *batches: Tensor, **options: Any) -> Activations:
    pairs = [(x, torch.zeros(len(x), dtype=torch.long)) for x in batches]
    return activations(Problem(net, pairs), **options)


def relu(*batches: Tensor, **options: Any) -> Activations:
    return of(through(nn.ReLU()), *batches, **options)


def hooks(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


# closed forms


@pytest.mark.parametrize(
    ("act", "x", "zeros", "small"),
    [
        (nn.ReLU(), torch.zeros(3, 4), 1, 1),
        (nn.ReLU(), FLAT[:, None].expand(-1, 2), 0.5, 0.505),
        (nn.SiLU(), BELL[:, None].expand(-1, 2), 0, 0.0160),
    ],
)
def test_closed_forms(act: nn.Module, x: Tensor, zeros: float, small: float) -> None:
    a = of(through(act), x)
    assert a.zeros == pytest.approx(zeros, abs=2e-5)
    assert a.small == pytest.approx(small, abs=5e-5)
    assert a.dead == (zeros == 1)


def test_the_threshold_itself_counts_as_small() -> None:
    a = relu(torch.tensor([[0.5, -0.5, 0.6, 0.4]]), threshold=0.5)
    assert a.small == 0.75
    assert a.threshold == 0.5
    assert "|a| <= 0.5" in a.table()[0]


def test_faint_is_relative_to_the_largest_of_each_sample() -> None:
    x = torch.tensor([[100.0, 1.0, 0.5, 2.0], [1.0, 0.5, 0.011, 0.009]])
    a = relu(x, relative=0.01)
    assert a.faint == relu(x[:1], x[1:], relative=0.01).faint == 3 / 8
    assert relu(1e4 * x, relative=0.01).faint == a.faint
    assert relu(-x, relative=0.01).faint == 1
    assert "|a| <= 0.01 max" in a.table()[0]


def test_every_number_counts_the_same_whatever_the_batches() -> None:
    x = torch.tensor([[-1.0, -1, -1], [1, -1, 1], [1, 1, 1], [1, 1, -1]])
    uneven, all_at_once = relu(x[:1], x[1:]), relu(x)
    assert uneven.zeros == all_at_once.zeros == 5 / 12
    assert uneven.small == all_at_once.small


def test_both_calls_of_a_module_count() -> None:
    net = cases.Net(lambda net, x: net.act(net.weight * x) + net.act(-x), act=nn.ReLU())
    a = of(net, torch.ones(3, 2))
    assert (a.zeros, a.dead) == (0.5, 0)


def test_a_module_called_at_different_widths() -> None:
    layers = {"one": nn.Linear(2, 3), "two": nn.Linear(3, 4), "act": nn.ReLU()}
    a = of(
        cases.Net(lambda net, x: net.act(net.two(net.act(net.one(x)))), **layers),
        FLAT[:2, None].expand(2, 2),
    )
    assert (a.names, a.units) == (["act"], 7)
    assert 0 <= a.zeros[0] <= 1


# dead channels


def test_dead_units_of_a_linear_layer() -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
    nn.init.zeros_(net[0].weight)
    net[0].bias.data = torch.tensor([1.0, -1.0, 2.0, 0.0])
    a = of(net, torch.randn(5, 2), torch.randn(3, 2))
    assert (a.dead, a.zeros) == (0.5, 0.5)


def test_a_channel_that_is_active_at_one_pixel_of_one_sample_is_not_dead() -> None:
    x = torch.full((4, 3, 5, 5), -1.0)
    x[3, 1, 4, 2] = 1
    net = cases.Net(lambda net, x: net.act(net.weight * x).mean((2, 3)), act=nn.ReLU())
    a = of(net, x[:1], x[1:])
    assert a.dead == pytest.approx(2 / 3)
    assert a.zeros == 299 / 300


def test_dead_units_in_the_last_dimension_of_images() -> None:
    net = cases.Net(
        lambda net, x: net.act(net.linear(net.conv(x).permute(0, 2, 3, 1))).mean((1, 2)),
        conv=nn.Conv2d(3, 16, 4, 4),
        linear=nn.Linear(16, 32),
        act=nn.ReLU(),
    )
    net.linear.bias.data[:16] = -100
    a = of(net, torch.randn(4, 3, 20, 20))
    assert (a.units, a.dead) == (32, 0.5)


def test_units_of_a_vision_network_of_torchvision() -> None:
    convnext = pytest.importorskip("torchvision.models.convnext")
    torch.manual_seed(0)
    config = [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)]
    net = convnext._convnext(config, 0.0, None, False, num_classes=3)
    assert of(net, torch.randn(2, 3, 32, 32)).units.tolist() == [32, 64]


def test_unclear_units_are_left_out() -> None:
    net = cases.Net(
        lambda net, x: net.act(net.layer(x).view(-1, 5, 3, 4)).mean((2, 3)),
        layer=nn.Linear(6, 12),
        act=nn.ReLU(),
    )
    a = activations(Problem(net, [(torch.randn(4, 5, 6), torch.tensor([0, 1, 2, 3]))]))
    assert (a.units, np.isnan(a.dead), np.isnan(a.class_dead).all()) == (0, True, True)
    assert np.isfinite([*a.class_zeros.ravel(), *a.faint]).all()
    assert (a.table()[0]["channels"], a.table()[0]["dead channels"]) == ("", "")
    assert a.plot().get_lines()


# default modules


def test_blocks_of_a_resnet18_and_the_last_of_each_stage() -> None:
    a = of(models.build("resnet18", width=4), torch.randn(3, 3, 8, 8))
    assert a.names == [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]
    assert a.stage_last == [False, True] * 4
    assert [row["block"] for row in a.table()][:2] == ["layer1.0", "layer1.1 *"]
    ax = a.plot()
    *shares, rings = ax.get_lines()
    assert [list(line.get_ydata()) for line in shares] == [list(range(8))] * 3
    assert list(shares[0].get_xdata()) == (100 * a.small).tolist()
    assert list(rings.get_ydata()) == [1, 3, 5, 7]
    assert [label.get_text() for label in ax.get_yticklabels()] == a.names
    assert ax.yaxis_inverted()


def test_blocks_of_a_resnet_are_taken_after_the_addition() -> None:
    net, x = models.build("resnet20", width=4).eval(), torch.randn(6, 3, 8, 8)
    with torch.no_grad():
        out = net.layer1(net.act1(net.bn1(net.conv1(x))))
    a = of(net, x)
    assert a.zeros[a.names.index("layer1.2")] == float((out == 0).double().mean())


@pytest.mark.parametrize("name", MODELS)
def test_every_built_in_network_has_blocks(name: str) -> None:
    net = models.build(name, width=4, size=8, channels=1)
    a = of(net, torch.randn(6, 1, 8, 8))
    assert sum(a.stage_last) == len(net.stages)
    assert a.stage_last[-1]
    assert len(a.names) == len(a.zeros) == len(a.small) == len(a.dead)
    assert (a.zeros <= a.small).all()
    assert 0 < a.small.max() <= 1
    assert a.dead.min() >= 0


def test_activation_layers_of_any_other_network() -> None:
    net = nn.Sequential(
        nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 5), GhostReLU(), nn.Linear(5, 3), nn.LeakyReLU()
    )
    a = of(net, torch.randn(9, 2))
    assert (a.names, a.stage_last) == (["1", "3", "5"], [False] * 3)
    assert of(through(nn.ReLU(), idle=nn.ReLU()), torch.randn(3, 2)).names == ["act"]


@pytest.mark.parametrize(
    "stages",
    [[[64, 2], [128, 2]], [["act"], ["nowhere"]], [], nn.ModuleList([nn.Linear(2, 2)])],
)
def test_an_attribute_stages_that_means_something_else(stages: Any) -> None:
    net = through(nn.ReLU())
    net.stages = stages
    assert of(net, torch.randn(3, 2)).names == ["act"]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(kind: type[nn.RNNBase]) -> None:
    net = cases.Net(lambda net, x: net.layer(x)[0][:, -1], layer=kind(3, 5, batch_first=True))
    x = torch.randn(4, 6, 3)
    a = of(net, x)
    with torch.no_grad():
        out = net.layer(x)[0]
    assert (a.names, a.units) == (["layer"], 5)
    assert a.rms == pytest.approx(float(out.square().mean().sqrt()))
    assert np.isfinite(a.faint)


@pytest.mark.parametrize("net", [nn.Linear(2, 3), nn.Sequential(nn.Linear(2, 3), nn.Softmax(1))])
def test_a_network_without_activations(net: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"no activation .* modules='\*'"):
        of(net, torch.randn(3, 2))


# activations that are functions


@pytest.mark.parametrize("inplace", [False, True])
def test_functions_count_as_modules_do(inplace: bool) -> None:
    torch.manual_seed(0)
    called = cases.Net(
        lambda net, x: net.b(F.relu(net.a(x), inplace=inplace)).tanh().add(0).relu_(),
        a=nn.Linear(2, 4),
        b=nn.Linear(4, 4),
    )
    net, x = nn.Sequential(called, nn.ReLU(), nn.Linear(4, 3)), torch.randn(9, 2)
    layers = (called.a, nn.ReLU(), called.b, nn.Tanh(), nn.ReLU(), *net[1:])
    found, expected = of(net, x), of(nn.Sequential(*layers), x)
    assert found.names == ["0.relu", "0.tanh", "1"]
    assert expected.names == ["1", "3", "4", "5"]
    both_calls = (expected.zeros[0] + expected.zeros[2]) / 2
    assert found.zeros.tolist() == pytest.approx([both_calls, *expected.zeros[[1, 3]]])
    assert hooks(net) == 0
    assert of(net, x, modules="0.a,1").names == ["0.a", "1"]


@pytest.mark.parametrize("name", ["Sigmoid", "Softplus", "GLU", "Hardsigmoid"])
def test_gates_count(name: str) -> None:
    x, narrow = torch.randn(5, 2), cases.Net(lambda _, x: x[:, :2])
    function = getattr(F, name.lower())
    called = cases.Net(lambda _, x: function(x)[:, :2])
    assert of(nn.Sequential(nn.Linear(2, 4), getattr(nn, name)(), narrow), x).names == ["1"]
    assert of(nn.Sequential(nn.Linear(2, 4), called), x).names == [f"1.{name.lower()}"]


def zero_below(h: Tensor) -> Tensor:
    h = h.clone()
    h[h < 0] = 0
    return h


def swiglu(h: Tensor) -> Tensor:
    gate, value = h.chunk(2, dim=1)
    return F.silu(gate) * value


class Twice(torch.autograd.Function):
    """A function that torch cannot look into."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return 2 * gradients[0]


ROW = torch.tensor([[-2.0, 0.5, -1, 3]])  # under ReLU two of four are 0, and the rms is RELU
RELU = ((0.5**2 + 3**2) / 4) ** 0.5


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda h: torch.clamp(h, min=0), {"clamp": (0.5, RELU)}),
        (lambda h: h.clamp_(0), {"clamp": (0.5, RELU)}),
        (lambda h: h.clip(0, 6), {"clip": (0.5, RELU)}),
        (lambda h: torch.maximum(h, torch.zeros(4)), {"maximum": (0.5, RELU)}),
        (lambda h: torch.max(torch.zeros_like(h), h), {"max": (0.5, RELU)}),
        (lambda h: -torch.minimum(-h, torch.zeros(())), {"minimum": (0.5, RELU)}),
        (lambda h: torch.where(h > 0, h, 0.0), {"where": (0.5, RELU)}),
        (lambda h: h.where(h > 0, torch.zeros(())), {"where": (0.5, RELU)}),
        (lambda h: h.masked_fill(h < 0, 0), {"masked_fill": (0.5, RELU)}),
        (zero_below, {"setitem": (0.5, RELU)}),
        (lambda h: F.threshold(h, 0, 0), {"threshold": (0.5, RELU)}),
        (nn.Threshold(0, 0), {"": (0.5, RELU)}),
        (lambda h: h * (h > 0), {"mul": (0.5, RELU)}),
        (lambda h: h.mul_((h > 0).float()), {"mul": (0.5, RELU)}),
        (lambda h: (h + h.abs()) / 2, {"abs": (0, (14.25 / 4) ** 0.5)}),
        (lambda h: F.hardshrink(h, 0.5), {"hardshrink": (0.25, (14 / 4) ** 0.5)}),
        (nn.Softshrink(0.5), {"": (0.25, ((1.5**2 + 0.5**2 + 2.5**2) / 4) ** 0.5)}),
        (F.hardtanh, {"hardtanh": (0, (3.25 / 4) ** 0.5)}),
        (F.relu6, {"relu6": (0.5, RELU)}),
        (lambda h: h.round() ** 2, {"round": (0.25, None), "pow": (0.25, (98 / 4) ** 0.5)}),
        (torch.sin, {"sin": (0, float(ROW.sin().square().mean() ** 0.5))}),
        (lambda h: h / (1 + h.abs()), {"abs": (0, None), "div": (0, None)}),
        (
            lambda h: h * torch.sigmoid(h),
            {"sigmoid": (0, None), "mul": (0, float(F.silu(ROW).square().mean() ** 0.5))},
        ),
        (swiglu, {"silu": (0, None), "mul": (0, None)}),
        (lambda h: Twice.apply(h).clamp(min=0), {"clamp": (0.5, 2 * RELU)}),
        (torch.vmap(lambda v: v.clamp(min=0)), {"clamp": (0.5, RELU)}),
    ],
)
def test_activations_written_in_other_ways(function: Any, expected: dict[str, Any]) -> None:
    act = function if isinstance(function, nn.Module) else cases.Net(lambda _, h: function(h))
    a = of(through(act), ROW)
    assert a.names == [f"act.{name}".rstrip(".") for name in expected]
    for zeros, rms, (share, size) in zip(a.zeros, a.rms, expected.values(), strict=True):
        assert zeros == share
        assert size is None or rms == pytest.approx(size)


class RmsNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class ConvNormClamp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(1, 2, 1), RmsNorm()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).clamp(min=0)


def test_a_block_that_is_named_after_its_norm() -> None:
    assert of(nn.Sequential(ConvNormClamp(), nn.Flatten()), torch.randn(3, 1, 4)).names == [
        "0.clamp"
    ]


class Tokens(nn.Module):
    """Attention to tokens that are not padding, with positions, temperatures and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm, self.scale = (
            nn.Embedding(5, 4),
            RmsNorm(),
            nn.Parameter(torch.ones(4)),
        )
        self.register_buffer("causal", torch.ones(3, 3, dtype=torch.bool).tril())

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        angles = torch.arange(3.0)[:, None] * torch.ones(4)
        h = self.norm(self.embedding(ids)) * self.scale * F.softplus(self.scale)
        h = h * angles.cos() + F.dropout(h, training=self.training) * angles.sin()
        scores = torch.where(self.causal, h @ h.mT / 2, -torch.inf)
        padding = (1 - mask.float()).bool()[:, None]
        weights = scores.masked_fill(mask[:, None] == 0, -9).masked_fill(padding, -9).softmax(-1)
        h = (weights @ h) / h.norm(dim=-1, keepdim=True)
        return (torch.maximum(h, torch.zeros(())) * mask[..., None]).mean(1)


def test_masks_positions_temperatures_norms_and_softmax_are_no_activations() -> None:
    ids, mask = torch.randint(5, (2, 3)), torch.tensor([[1, 1, 1], [1, 1, 0]])
    a = activations(Problem(Tokens(), [((ids, mask), torch.tensor([0, 1]))]))
    assert a.names == ["maximum"]


# modules by name


def test_modules_are_chosen_by_globs() -> None:
    net, x = models.build("resnet18", width=4).eval(), torch.randn(3, 3, 8, 8)
    a = of(net, x, modules="layer[12].*.conv2, fc")
    assert a.names == [f"layer{i}.{j}.conv2" for i in (1, 2) for j in (0, 1)] + ["fc"]
    with torch.no_grad():
        out = net(x)
    assert a.rms[-1] == pytest.approx(float(out.square().mean().sqrt()), rel=1e-6)
    assert a.small[-1] == float((out.abs() <= 0.01).double().mean())
    assert a.units.tolist() == [4, 4, 8, 8, 10]
    assert not any(a.stage_last)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": "atc"}, r"'atc'; did you mean 'act'\? Known, by level: act"),
        ({"modules": "idle"}, "'idle' has no floating-point output"),
        ({"threshold": -1}, r"threshold=-1, relative=0\.01: need 0 or more"),
        ({"relative": -1}, r"threshold=0\.01, relative=-1: need 0 or more"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of(through(nn.ReLU(), idle=nn.ReLU()), torch.randn(3, 2), **options)


@dataclass
class Output:
    count: int
    hidden: Tensor


def hugging_face(a: Tensor) -> Any:
    output = pytest.importorskip("transformers.modeling_outputs")
    return output.BaseModelOutput(last_hidden_state=a)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda a: (a, a[:1]),
        lambda a: [None, (a,)],
        lambda a: {"ids": torch.zeros(3, dtype=torch.long), "hidden": a},
        lambda a: Output(3, a),
        hugging_face,
    ],
)
def test_the_first_tensor_of_an_output(wrap: Callable[[Tensor], Any]) -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        net.act(net.weight * x)
        return net.weight * x

    x, act = torch.randn(4, 5), cases.Net(lambda _, x: wrap(x.relu()))
    a = of(cases.Net(run, act=act), x, modules="act")
    assert a.zeros == float((x <= 0).double().mean())
    assert a.units == 5


# samples


def test_outputs_without_a_row_for_each_sample() -> None:
    net = cases.Net(lambda net, x: x * net.weight + net.act(x[:3]).sum(), act=nn.ReLU())
    a = of(net, torch.randn(5, 2))
    assert np.isnan(a.faint[0])
    assert np.isnan(a.class_dead).all()
    assert a.table()[0]["|a| <= 0.01 max"] == ""
    assert np.isfinite([a.zeros, a.small, a.dead, a.rms]).all()


@pytest.mark.parametrize("time", [4, 8, 5])
def test_time_steps_are_not_taken_for_samples(time: int) -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        rows = net.layer.self_attn.batch_first
        a = net.layer(x if rows else x.transpose(0, 1))
        return net.fc((a if rows else a.transpose(0, 1)).mean(1))

    torch.manual_seed(0)
    first, second = (
        cases.Net(
            run,
            layer=nn.TransformerEncoderLayer(8, 2, 12, batch_first=batch_first),
            fc=nn.Linear(8, 2),
        )
        for batch_first in (True, False)
    )
    second.load_state_dict(first.state_dict())
    x, y = torch.randn(4, time, 8), torch.tensor([0, 1, 1, 0])
    rows, columns = (
        activations(Problem(net, [(x, y)]), modules="*.linear1,*.linear2,fc")
        for net in (first, second)
    )
    assert np.isfinite(rows.faint).all()
    assert np.isnan(columns.faint).tolist() == [True, True, False]
    assert np.isnan(columns.class_zeros).any(0).tolist() == [True, True, False]
    for field in ("zeros", "small", "dead", "units", "rms"):
        assert getattr(rows, field) == pytest.approx(getattr(columns, field))


# class by class


def squared(outputs: Tensor, _: Any) -> Tensor:
    return outputs.square().mean()


def test_zeros_and_dead_units_of_each_class() -> None:
    x = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [1, 1, -1], [-1, -1, -1]])
    y = torch.tensor([2, 7, 2, 9])
    batches = [(x[:1], y[:1]), (x[1:], y[1:])]
    a = activations(Problem(through(nn.ReLU()), batches, loss=squared))
    assert a.classes == [2, 7, 9]
    assert a.class_zeros[:, 0] == pytest.approx([0.5, 2 / 3, 1])
    assert a.class_dead[:, 0] == pytest.approx([1 / 3, 2 / 3, 1])
    assert a.dead == pytest.approx(1 / 3)
    assert list(a.table()[0].values())[-2:] == ["66.67%", "100.00%"]
    assert len(a.plot().get_lines()) == 5


@pytest.mark.parametrize(
    "targets", [torch.zeros(4), torch.zeros(4, 2, dtype=torch.long), None, (torch.zeros(4),)]
)
def test_targets_that_are_no_classes(targets: Any) -> None:
    a = activations(Problem(through(nn.ReLU()), [(torch.randn(4, 3), targets)], loss=squared))
    assert a.classes == []
    assert a.class_zeros.shape == a.class_dead.shape == (0, 1)
    assert list(a.table()[0])[-1] == "rms"


def test_the_share_of_zeros_is_the_mean_over_the_classes() -> None:
    problem = cases.relu_cnn()
    a = activations(problem)
    counts = torch.cat([y for _, y in problem.batches]).bincount().numpy()
    assert a.zeros == pytest.approx(counts @ a.class_zeros / counts.sum())
    assert (a.class_dead >= a.dead).all()


# the caller's network


def test_hooks_are_removed_when_the_forward_pass_fails() -> None:
    net = through(nn.ReLU())
    problem = Problem(net, [(torch.randn(3, 2), torch.zeros(3, dtype=torch.long))])
    net.run = lambda net, x: net.act(x).view(-1, 5)
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        activations(problem)
    assert hooks(net) == 0


def test_the_network_and_the_global_rng_are_left_alone() -> None:
    problem = cases.relu_cnn()
    net = problem.net.train()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    rng = torch.get_rng_state()
    seen: list[tuple[int, int]] = []
    activations(problem, progress=lambda *at: seen.append(at))
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert all(m.training for m in net.modules())
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng)
    assert hooks(net) == 0
    assert seen == [(1, 3), (2, 3), (3, 3)]
