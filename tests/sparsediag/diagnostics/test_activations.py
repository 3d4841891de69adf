"""Shares of zeros against closed forms, and which blocks they are taken of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cases
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparsediag import Activations, Problem, activations, models
from sparsediag.models import MODELS, GhostReLU

FLAT = torch.linspace(-1, 1, 100_001)
BELL = torch.special.ndtri((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000).float()


class Through(nn.Module):
    """The input through one activation; the weight is 1 and is there to make a problem."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.weight * x)


class Twice(Through):
    """Its activation sees the input first, and then its negative."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.weight * x) + self.act(-x)


class Shared(nn.Module):
    """One activation behind layers of different widths."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.Linear(2, 3), nn.Linear(3, 4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.two(self.act(self.one(x))))


class Idle(Through):
    """It has an activation that it does not use."""

    def __init__(self) -> None:
        super().__init__(nn.ReLU())
        self.idle = nn.ReLU()


class OwnStages(nn.Module):
    """It calls something of its own `stages`."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Sequential(nn.Linear(2, 3), nn.ReLU())])

    def forward(self, x: Tensor) -> Tensor:
        return self.stages[0](x)


class Breaking(Through):
    """It works until it is told to break."""

    broken = False

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        if self.broken:
            raise RuntimeError("broken")
        return out


def of(net: nn.Module, *batches: Tensor, **options: Any) -> Activations:
    pairs = [(x, torch.zeros(len(x), dtype=torch.long)) for x in batches]
    return activations(Problem(net, pairs), **options)


def hooks(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) for m in net.modules())


# closed forms


def test_nothing_in_is_all_zero() -> None:
    a = of(Through(nn.ReLU()), torch.zeros(3, 4))
    assert (a.zeros.tolist(), a.small.tolist(), a.dead.tolist()) == ([1], [1], [1])


def test_relu_of_a_uniform_input() -> None:
    a = of(Through(nn.ReLU()), FLAT[:, None].expand(-1, 2))
    assert a.small == pytest.approx(0.505, abs=2e-5)
    assert a.zeros == pytest.approx(0.5, abs=2e-5)


def test_swish_of_a_gaussian_input() -> None:
    a = of(Through(nn.SiLU()), BELL[:, None].expand(-1, 2))
    assert a.small == pytest.approx(0.0160, abs=5e-5)
    assert a.zeros == 0


def test_the_threshold_itself_counts_as_small() -> None:
    a = of(Through(nn.ReLU()), torch.tensor([[0.5, -0.5, 0.6, 0.4]]), threshold=0.5)
    assert a.small == 0.75
    assert a.threshold == 0.5
    assert "|a| <= 0.5" in a.table()[0]


def test_every_number_counts_the_same_whatever_the_batches() -> None:
    x = torch.tensor([[-1.0, -1, -1], [1, -1, 1], [1, 1, 1], [1, 1, -1]])
    uneven, whole = of(Through(nn.ReLU()), x[:1], x[1:]), of(Through(nn.ReLU()), x)
    assert uneven.zeros == whole.zeros == 5 / 12
    assert uneven.small == whole.small


def test_both_calls_of_a_module_count() -> None:
    assert of(Twice(nn.ReLU()), torch.ones(3, 2)).zeros == 0.5
    assert of(Twice(nn.ReLU()), torch.ones(3, 2)).dead == 0


def test_a_module_called_at_different_widths() -> None:
    a = of(Shared(), torch.randn(5, 2))
    assert a.names == ["act"]
    assert 0 <= a.zeros[0] <= 1


# dead channels


def test_dead_units_of_a_linear_layer() -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
    nn.init.zeros_(net[0].weight)
    net[0].bias.data = torch.tensor([1.0, -1.0, 2.0, 0.0])
    a = of(net, torch.randn(5, 2), torch.randn(3, 2))
    assert a.dead == 0.5
    assert a.zeros == 0.5


def test_a_channel_that_lives_at_one_place_of_one_sample_is_alive() -> None:
    x = torch.full((4, 3, 5, 5), -1.0)
    x[3, 1, 4, 2] = 1
    a = of(Through(nn.Sequential(nn.ReLU(), Pooled())), x[:1], x[1:])
    assert a.dead == pytest.approx(2 / 3)
    assert a.zeros == 299 / 300


class Pooled(nn.Module):
    """The mean over the places."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


# which blocks


def test_blocks_of_a_resnet18_and_the_last_of_each_stage() -> None:
    a = of(models.build("resnet18", width=4), torch.randn(3, 3, 8, 8))
    assert a.names == [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]
    assert a.stage_last == [False, True] * 4
    assert [row["block"] for row in a.table()][:2] == ["layer1.0", "layer1.1 *"]


def test_blocks_of_a_resnet_are_taken_after_the_addition() -> None:
    net, x = models.build("resnet20", width=4).eval(), torch.randn(6, 3, 8, 8)
    with torch.no_grad():
        out = net.layer1(net.act1(net.bn1(net.conv1(x))))
    a = of(net, x)
    assert a.zeros[a.names.index("layer1.2")] == float((out == 0).double().mean())


def test_activation_layers_of_any_other_net() -> None:
    net = nn.Sequential(
        nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 5), GhostReLU(), nn.Linear(5, 3), nn.LeakyReLU()
    )
    a = of(net, torch.randn(9, 2))
    assert a.names == ["1", "3", "5"]
    assert a.stage_last == [False] * 3


@pytest.mark.parametrize("name", MODELS)
def test_every_built_in_net_has_blocks(name: str) -> None:
    net = models.build(name, width=4, size=8, channels=1)
    a = of(net, torch.randn(6, 1, 8, 8))
    assert sum(a.stage_last) == len(net.stages)
    assert a.stage_last[-1]
    assert len(a.names) == len(a.zeros) == len(a.small) == len(a.dead)
    assert (a.zeros <= a.small).all()
    assert 0 < a.small.max() <= 1
    assert a.dead.min() >= 0


@pytest.mark.parametrize("net", [nn.Linear(2, 3), nn.Sequential(nn.Linear(2, 3), nn.Softmax(1))])
def test_a_net_without_activations_says_so(net: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"no activation to look at; name modules"):
        of(net, torch.randn(3, 2))


def test_an_activation_that_is_never_used() -> None:
    assert "act" in of(Idle(), torch.randn(3, 2)).names


def test_a_net_with_stages_of_its_own() -> None:
    assert of(OwnStages(), torch.randn(3, 2)).names == ["stages.0.1"]


# the net is left alone


def test_hooks_are_removed() -> None:
    net = Through(nn.ReLU())
    of(net, torch.randn(3, 2))
    assert hooks(net) == 0


def test_hooks_are_removed_when_the_forward_pass_breaks() -> None:
    net = Breaking(nn.ReLU())
    problem = Problem(net, [(torch.randn(3, 2), torch.zeros(3, dtype=torch.long))])
    net.broken = True
    with pytest.raises(RuntimeError, match="broken"):
        activations(problem)
    assert hooks(net) == 0


def test_the_net_and_the_global_rng_are_left_alone() -> None:
    problem = cases.relu_cnn()
    net = problem.net.train()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    rng = torch.get_rng_state()
    activations(problem)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert all(m.training for m in net.modules())
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_progress_counts_batches() -> None:
    seen: list[tuple[int, int]] = []
    activations(cases.relu_cnn(), progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_picture_has_a_line_for_each_share_and_rings_the_last_blocks() -> None:
    a = of(models.build("resnet18", width=4), torch.randn(3, 3, 8, 8))
    ax = a.plot()
    *shares, rings = ax.get_lines()
    assert [list(line.get_ydata()) for line in shares] == [list(range(8))] * 3
    assert list(shares[0].get_xdata()) == (100 * a.small).tolist()
    assert list(rings.get_ydata()) == [1, 3, 5, 7]
    assert [label.get_text() for label in ax.get_yticklabels()] == a.names
    assert ax.yaxis_inverted()


# modules of one's own choice


def test_modules_are_named_by_globs() -> None:
    net, x = models.build("resnet18", width=4).eval(), torch.randn(3, 3, 8, 8)
    a = of(net, x, modules="layer[12].*.conv2, fc")
    assert a.names == [f"layer{i}.{j}.conv2" for i in (1, 2) for j in (0, 1)] + ["fc"]
    with torch.no_grad():
        out = net(x)
    assert a.rms[-1] == pytest.approx(float(out.square().mean().sqrt()), rel=1e-6)
    assert a.small[-1] == float((out.abs() <= 0.01).double().mean())
    assert a.units.tolist() == [4, 4, 8, 8, 10]
    assert not any(a.stage_last)


def test_modules_that_do_not_exist_or_give_nothing() -> None:
    with pytest.raises(ValueError, match=r"unknown module 'atc'; did you mean 'act'\?"):
        of(Through(nn.ReLU()), torch.randn(3, 2), modules="atc")
    with pytest.raises(ValueError, match="'idle' and the like give no numbers"):
        of(Idle(), torch.randn(3, 2), modules="idle")
    with pytest.raises(ValueError, match=r"threshold=-1, relative=0\.01: need 0 or more"):
        of(Through(nn.ReLU()), torch.randn(3, 2), threshold=-1)


class Giving(Through):
    """Its activation's output goes through a function, into whatever that makes."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__(Wrapping(wrap))

    def forward(self, x: Tensor) -> Tensor:
        self.act(self.weight * x)
        return self.weight * x


class Wrapping(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(x.relu())


@dataclass
class Output:
    count: int
    hidden: Tensor


@pytest.mark.parametrize(
    "wrap",
    [
        lambda a: (a, a[:1]),
        lambda a: [None, (a,)],
        lambda a: {"ids": torch.zeros(3, dtype=torch.long), "hidden": a},
        lambda a: Output(3, a),
    ],
)
def test_the_first_tensor_of_what_a_module_gives(wrap: Callable[[Tensor], Any]) -> None:
    x = torch.randn(4, 5)
    a = of(Giving(wrap), x, modules="act")
    assert a.zeros == float((x <= 0).double().mean())
    assert a.units == 5


def test_an_output_of_hugging_face() -> None:
    output = pytest.importorskip("transformers.modeling_outputs")
    x = torch.randn(4, 5)
    net = Giving(lambda a: output.BaseModelOutput(last_hidden_state=a))
    assert of(net, x, modules="act").zeros == float((x <= 0).double().mean())


# which share counts as small


def test_faint_is_relative_to_the_largest_of_each_sample() -> None:
    x = torch.tensor([[100.0, 1.0, 0.5, 2.0], [1.0, 0.5, 0.011, 0.009]])
    whole = of(Through(nn.ReLU()), x, relative=0.01)
    apart = of(Through(nn.ReLU()), x[:1], x[1:], relative=0.01)
    assert whole.faint == apart.faint == 3 / 8
    assert of(Through(nn.ReLU()), 1e4 * x, relative=0.01).faint == whole.faint
    assert of(Through(nn.ReLU()), -x, relative=0.01).faint == 1
    assert "|a| <= 0.01 max" in whole.table()[0]


class Crowd(Through):
    """Its activation sees what is no longer sorted by samples."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.act(x[:3]).sum()


def test_what_cannot_be_told_apart_by_samples_is_nan() -> None:
    a = of(Crowd(nn.ReLU()), torch.randn(5, 2))
    assert np.isnan(a.faint[0])
    assert np.isnan(a.class_dead).all()
    assert a.table()[0]["|a| <= 0.01 max"] == ""
    assert np.isfinite([a.zeros, a.small, a.dead, a.rms]).all()


# units


class Tokens(nn.Module):
    """(samples, tokens, 3) through a linear layer and an activation, or a convolution."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.act = layer, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.layer(x)).flatten(1).mean(1, keepdim=True).expand(-1, 2)


def test_units_of_tokens_are_last_and_those_of_signals_second() -> None:
    x = torch.randn(4, 3, 3)
    linear, conv = nn.Linear(3, 5), nn.Conv1d(3, 5, 1)
    for layer in (linear, conv):
        nn.init.zeros_(layer.weight)
        layer.bias.data = torch.tensor([1.0, -1.0, 2.0, 0.0, 3.0])
    for layer in (linear, conv):
        a = of(Tokens(layer), x)
        assert (a.units, a.dead, a.zeros) == (5, pytest.approx(0.4), pytest.approx(0.4))


def test_volumes_have_their_channels_second() -> None:
    x = torch.full((2, 3, 2, 2, 2), -1.0)
    x[1, 2, 0, 1, 0] = 1
    a = of(Through(nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(24, 2))), x)
    assert a.names == ["act.0"]
    assert (a.units, a.dead) == (3, pytest.approx(2 / 3))


# class by class


def test_zeros_and_dead_units_of_each_class() -> None:
    x = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [1, 1, -1], [-1, -1, -1]])
    y = torch.tensor([2, 7, 2, 9])
    batches = [(x[:1], y[:1]), (x[1:], y[1:])]
    a = activations(Problem(Through(nn.ReLU()), batches, loss=squared))
    assert a.classes == [2, 7, 9]
    assert a.class_zeros[:, 0] == pytest.approx([0.5, 2 / 3, 1])
    assert a.class_dead[:, 0] == pytest.approx([1 / 3, 2 / 3, 1])
    assert a.dead == pytest.approx(1 / 3)
    row = a.table()[0]
    assert (row["dead for a class"], row["at most"]) == ("66.67%", "100.00%")


def squared(outputs: Tensor, _: Any) -> Tensor:
    return outputs.square().mean()


@pytest.mark.parametrize(
    "targets", [torch.zeros(4), torch.zeros(4, 2, dtype=torch.long), None, (torch.zeros(4),)]
)
def test_targets_that_are_no_classes(targets: Any) -> None:
    a = activations(Problem(Through(nn.ReLU()), [(torch.randn(4, 3), targets)], loss=squared))
    assert a.classes == []
    assert a.class_zeros.shape == a.class_dead.shape == (0, 1)
    assert "dead for a class" not in a.table()[0]


def test_the_whole_is_the_mean_of_the_classes_by_their_numbers() -> None:
    problem = cases.relu_cnn()
    a = activations(problem)
    counts = torch.cat([y for _, y in problem.batches]).bincount().numpy()
    assert a.zeros == pytest.approx(counts @ a.class_zeros / counts.sum())
    assert (a.class_dead >= a.dead).all()


# activations that are functions


class Called(nn.Module):
    """Two layers with activations that no module stands for."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.inplace = nn.Linear(2, 4), nn.Linear(4, 4), inplace

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(nn.functional.relu(self.a(x), inplace=self.inplace))
        return x.tanh().relu_()


@pytest.mark.parametrize("inplace", [False, True])
def test_functions_count_as_modules_do(inplace: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Called(inplace), nn.ReLU(), nn.Linear(4, 3))
    layers = (net[0].a, nn.ReLU(), net[0].b, nn.Tanh(), nn.ReLU(), *net[1:])
    same, x = nn.Sequential(*layers), torch.randn(9, 2)
    came, expected = of(net, x), of(same, x)
    assert came.names == ["0.relu", "0.tanh", "1"]
    assert expected.names == ["1", "3", "4", "5"]
    relu = (expected.zeros[0] + expected.zeros[2]) / 2  # both calls count
    assert came.zeros.tolist() == pytest.approx([relu, expected.zeros[1], expected.zeros[3]])
    assert hooks(net) == 0


def test_functions_are_not_among_modules_that_were_asked_for() -> None:
    net = nn.Sequential(Called(), nn.Linear(4, 3))
    assert of(net, torch.randn(3, 2), modules="0.a,1").names == ["0.a", "1"]


@pytest.mark.parametrize("act", [nn.Sigmoid(), nn.Softplus(), nn.GLU(), nn.Hardsigmoid()])
def test_gates_count(act: nn.Module) -> None:
    x = torch.randn(5, 2)
    assert of(nn.Sequential(nn.Linear(2, 4), act, Wide()), x).names == ["1"]
    assert of(nn.Sequential(nn.Linear(2, 4), Gated(act)), x).names == [f"1.{NAMES[type(act)]}"]


NAMES = {
    nn.Sigmoid: "sigmoid",
    nn.Softplus: "softplus",
    nn.GLU: "glu",
    nn.Hardsigmoid: "hardsigmoid",
}


class Wide(nn.Module):
    """Two scores, whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2]


class Gated(Wide):
    """An activation that is a function."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.function = getattr(nn.functional, NAMES[type(act)])

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.function(x))


# whatever way samples and units lie


class Sequence(nn.Module):
    """A transformer's layer on (samples, time, 8), inside with the time first or second."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=batch_first)
        self.batch_first, self.fc = batch_first, nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = x if self.batch_first else x.transpose(0, 1)
        a = self.layer(a)
        return self.fc((a if self.batch_first else a.transpose(0, 1)).mean(1))


@pytest.mark.parametrize("time", [4, 8, 5])
def test_the_time_is_not_taken_for_the_samples(time: int) -> None:
    torch.manual_seed(0)
    first, second = Sequence(True), Sequence(False)
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


class ChannelsLast(nn.Module):
    """A linear layer on images (samples, 5, 5, 16), of whose 32 units 16 are dead."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear, self.act = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 32), nn.ReLU()
        self.linear.bias.data[:16] = -100

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.linear(self.conv(x).permute(0, 2, 3, 1))).mean((1, 2))


def test_units_of_images_with_their_channels_last() -> None:
    a = of(ChannelsLast(), torch.randn(4, 3, 20, 20))
    assert (a.units, a.dead) == (32, 0.5)


def test_units_of_signals_and_of_tokens_in_one_net() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one = nn.Conv1d(2, 6, 3), nn.ReLU()
            self.linear, self.two = nn.Linear(6, 7), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.linear(self.one(self.conv(x)).transpose(1, 2))).mean(1)

    assert of(Both(), torch.randn(4, 2, 11)).units.tolist() == [6, 7]


def test_units_of_a_vision_net_of_others() -> None:
    convnext = pytest.importorskip("torchvision.models.convnext")
    torch.manual_seed(0)
    config = [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)]
    net = convnext._convnext(config, 0.0, None, False, num_classes=3)
    assert of(net, torch.randn(2, 3, 32, 32)).units.tolist() == [32, 64]


def test_units_that_cannot_be_told_are_left_out() -> None:
    class Heads(Through):
        def __init__(self) -> None:
            super().__init__(nn.ReLU())
            self.layer = nn.Linear(6, 12)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.layer(x).view(-1, 5, 3, 4)).mean((2, 3))

    x, y = torch.randn(4, 5, 6), torch.tensor([0, 1, 2, 3])
    a = activations(Problem(Heads(), [(x, y)]))
    assert (a.units, np.isnan(a.dead), np.isnan(a.class_dead).all()) == (0, True, True)
    assert np.isfinite([*a.class_zeros.ravel(), *a.faint]).all()
    assert (a.table()[0]["channels"], a.table()[0]["dead channels"]) == ("", "")
    assert a.plot().get_lines()


def test_stages_that_are_no_names() -> None:
    for stages in ([[64, 2], [128, 2]], [["act"], ["nowhere"]], []):
        net = Through(nn.ReLU())
        net.stages = stages  # type: ignore[assignment]
        assert of(net, torch.randn(3, 2)).names == ["act"]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_places_to_look_at(kind: type[nn.RNNBase]) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(3, 5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0][:, -1]

    net, x = Last(), torch.randn(4, 6, 3)
    a = of(net, x)
    with torch.no_grad():
        out = net.layer(x)[0]
    assert (a.names, a.units) == (["layer"], 5)
    assert a.rms == pytest.approx(float(out.square().mean().sqrt()))
    assert np.isfinite(a.faint)
